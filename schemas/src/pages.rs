//! Joining the pages of a reply. Pure: the caller asks for each page.

use serde_json::Value;

use crate::{
    error::{ErrorCode, Refusal},
    limits::{PAGE_ROWS_MAX, PAGES_MAX},
    params::Params,
};

/// The pages of one node's reply, joined so far.
#[derive(Debug)]
pub struct Pages {
    rows: &'static str,
    joined: Value,
    pages: usize,
}

impl Pages {
    /// Returns the parameters of the first request: the largest page.
    pub fn first_request(params: Params) -> Params {
        params.with("limit", PAGE_ROWS_MAX)
    }

    /// Begins with the first page. `rows` is the field of the rows.
    pub const fn new(rows: &'static str, first: Value) -> Self {
        Self { rows, joined: first, pages: 1 }
    }

    /// Returns the parameters of the next request, or `None` after the last page.
    ///
    /// # Errors
    /// There are more than [`PAGES_MAX`] pages.
    pub fn next_request(&self, params: &Params) -> Result<Option<Params>, Refusal> {
        let after = &self.joined["next_after"];
        if after.is_null() {
            return Ok(None);
        }
        if self.pages >= PAGES_MAX {
            let message = format!("there are more than {} {}", self.len(), self.rows);
            return Err(
                Refusal::new(ErrorCode::Limit, message).hint("ask for fewer: give filters, or one page at a time")
            );
        }
        Ok(Some(Self::first_request(params.clone()).with("after", after.clone())))
    }

    /// Adds the next page.
    pub fn add(&mut self, mut page: Value) {
        self.pages += 1;
        self.joined["next_after"] = page["next_after"].take();
        if let (Some(rows), Some(more)) = (self.joined[self.rows].as_array_mut(), page[self.rows].as_array_mut()) {
            rows.append(more);
        }
    }

    /// Returns how many rows there are so far.
    pub fn len(&self) -> usize {
        self.joined[self.rows].as_array().map_or(0, Vec::len)
    }

    /// Returns whether there are no rows so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns why a reply is not complete, when a page failed for this reason.
    pub fn incomplete(&self, reason: &Refusal) -> Refusal {
        let message = format!("only the first {} {} arrived: {}", self.len(), self.rows, reason.message);
        Refusal { message, ..reason.clone() }
    }

    /// Returns the joined reply.
    pub fn into_reply(self) -> Value {
        self.joined
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_are_joined_until_the_last() {
        let params = Pages::first_request(Params::default().with("name", "a*"));
        let mut pages = Pages::new("jobs", json!({"machine_id": "m", "jobs": [1, 2], "next_after": "2"}));
        let next = pages.next_request(&params).unwrap().unwrap();
        assert_eq!((next.text("after"), next.text("name")), (Ok(Some("2")), Ok(Some("a*"))));
        pages.add(json!({"jobs": [3], "next_after": null}));
        assert_eq!(pages.next_request(&params), Ok(None));
        assert_eq!(pages.into_reply(), json!({"machine_id": "m", "jobs": [1, 2, 3], "next_after": null}));
    }

    #[test]
    fn pages_without_an_end_are_an_error() {
        let page = || json!({"jobs": [1], "next_after": "1"});
        let mut pages = Pages::new("jobs", page());
        let mut asked = 0;
        let refusal = loop {
            match pages.next_request(&Params::default()) {
                Ok(next) => assert!(next.is_some()),
                Err(refusal) => break refusal,
            }
            asked += 1;
            pages.add(page());
        };
        assert_eq!((asked, refusal.code), (PAGES_MAX - 1, ErrorCode::Limit));
        assert!(pages.incomplete(&refusal).message.starts_with("only the first 1000 jobs"), "{refusal}");
    }
}
