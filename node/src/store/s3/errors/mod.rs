//! Failed requests: what is known of them, and what they mean.

mod codes;
mod failure;
mod meaning;

pub(super) use self::{
    failure::{Failure, date_s},
    meaning::{
        Request, StoreNames, block, can_no_parts, is_bad_digest, is_final, is_plain_refusal, is_unknown_upload,
        is_unsupported, may_be_skew, meaning, skew,
    },
};
