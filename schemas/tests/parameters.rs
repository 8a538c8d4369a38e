//! Parameters: how selector and payload become requests, and how requests become parameters.
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

use std::time::Duration;

use bubbaloop_storage_schemas::{
    ErrorCode, Timestamp, Verb,
    definition::VerbDefinition,
    error::Refusal,
    parameter::{Limit, NoParameters, Param, ParameterField, Parameters, Wait},
    params::Params,
    removal::RemoveFrom,
    selector,
    verbs::{
        adopt::AdoptRequest,
        help::Help,
        info::Info,
        list::{List, ListRequest},
        pause::PauseRequest,
        reconcile::{Reconcile, ReconcileRequest},
        rm::{Rm, RmRequest},
        upload::{Upload, UploadRequest},
    },
};
use serde_json::{Value, json};

fn limit(params: &Params) -> Result<usize, Refusal> {
    Limit::read(params, &Param::new("limit")).map(Limit::rows)
}

fn of_selector(text: &str) -> Params {
    selector::parse(text.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")))).unwrap()
}

fn payload(value: Value) -> Params {
    let mut params = Params::default();
    params.overlay(value.as_object().cloned().unwrap());
    params
}

#[test]
fn a_selector_and_a_payload_say_the_same() {
    for params in [
        of_selector("recording=r;all;limit=10;wait=5s;since=2026-01-01"),
        payload(json!({
            "recording": "r", "all": true, "limit": 10.0, "wait": 5, "since": 1_767_225_600_000_000_000_u64
        })),
    ] {
        assert_eq!(params.recording("recording").unwrap().unwrap().as_str(), "r");
        assert!(params.flag("all").unwrap());
        assert_eq!(limit(&params), Ok(10));
        assert_eq!(params.duration("wait").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(params.time("since").unwrap(), Some(Timestamp(1_767_225_600_000_000_000)));
    }
}

#[test]
fn seconds_are_not_taken_for_nanoseconds() {
    for number in [1, 1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000_u64] {
        for params in [of_selector(&format!("since={number}")), payload(json!({"since": number}))] {
            let refusal = params.time("since").unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidParams);
            assert!(refusal.hint.unwrap().contains("nanoseconds since 1970, or an RFC 3339 time"), "{number}");
        }
    }
    assert_eq!(of_selector("since=0").time("since").unwrap(), Some(Timestamp(0)));
    assert_eq!(of_selector("since=1970-01-02").time("since").unwrap(), Some(Timestamp(86_400_000_000_000)));
}

#[test]
fn parameters_that_are_joined_as_in_urls_are_refused_and_a_value_may_have_an_ampersand() {
    for pair in [("name", "a&limit=1"), ("_raw&name", "a"), ("name", "a&_raw"), ("all", "true&dry_run"), ("&", "")] {
        let refusal = selector::parse([pair]).unwrap_err();
        assert!(refusal.hint.unwrap().contains(';'), "{pair:?}");
    }
    assert_eq!(of_selector("tag=salt&pepper").text("tag").unwrap(), Some("salt&pepper"));
    assert_eq!(payload(json!({"tag": "a&limit=1"})).text("tag").unwrap(), Some("a&limit=1"));
}

#[test]
fn a_token_is_taken_from_a_payload_only_and_never_shown() {
    for pair in [("token", "hunter2"), ("Token", "hunter2"), ("a", "b&token=hunter2"), ("a&token", "hunter2")] {
        let refusal = selector::parse([pair]).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidParams);
        assert!(!format!("{refusal:?}").contains("hunter2") && refusal.hint.unwrap().contains("attachment"));
    }
    let mut params = payload(json!({"recording": "a", "token": "hunter2"}));
    assert_eq!(params.take_token().unwrap().as_deref(), Some("hunter2"));
    assert!(!format!("{params:?}").contains("hunter2"));
    assert_eq!(params.take_token(), Ok(None));
    let refusal = payload(json!({"token": 4711})).take_token().unwrap_err();
    assert!(!format!("{refusal:?}").contains("4711"));
}

#[test]
fn the_payload_wins_and_null_takes_back() {
    let mut params = of_selector("limit=1;name=a");
    params.overlay(json!({"limit": 2, "name": null}).as_object().cloned().unwrap());
    assert_eq!(limit(&params), Ok(2));
    assert_eq!(params.text("name").unwrap(), None);
}

#[test]
fn wrong_values_are_refused_by_name() {
    let params = payload(json!({
        "limit": 0, "all": "maybe", "wait": -1, "since": "soon", "recording": "../../x", "name": ["a"], "n": 0.5
    }));
    for (name, result) in [
        ("limit", limit(&params).map(drop)),
        ("all", params.flag("all").map(drop)),
        ("wait", params.duration("wait").map(drop)),
        ("since", params.time("since").map(drop)),
        ("../../x", params.recording("recording").map(drop)),
        ("name", params.text("name").map(drop)),
        ("n=", params.number("n").map(drop)),
    ] {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidParams);
        assert!(refusal.message.contains(name), "{name}: {refusal}");
    }
    for text in ["limit=1001", "limit=-1", "limit=1.5", "limit=99999999999999999999", "wait=x", "limit="] {
        let params = of_selector(text);
        assert!(limit(&params).is_err() || params.duration("wait").is_err(), "{text}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let refusal = Info::parse(&of_selector("recordin=x")).unwrap_err();
    assert_eq!(refusal.hint.as_deref(), Some("did you mean recording?"));
    let refusal = Help::parse(&of_selector("zzz=x")).unwrap_err();
    assert_eq!(refusal.hint.as_deref(), Some("help takes format"));
    assert_eq!(Help::parse(&of_selector("_time=[now(-1h)];format=cbor")), Ok(NoParameters));
}

#[test]
fn a_name_given_twice_is_no_guess() {
    assert!(selector::parse([("limit", "1"), ("limit", "2")]).is_err());
    assert!(selector::parse([("limit", "1"), ("limit", "1")]).is_ok());
}

#[test]
fn a_request_is_read_back_from_its_parameters() {
    fn same<R: Parameters>(request: R) {
        let params = request.to_params();
        assert_eq!(R::read(&params), Ok(request), "{params:?}");
    }
    same(NoParameters);
    same(ListRequest::default());
    same(ListRequest {
        name: Some("drive_*".into()),
        since: Some(Timestamp(86_400_000_000_000)),
        until: Some(Timestamp(1_764_000_000_123_456_789)),
        state: Some(bubbaloop_storage_schemas::recording::RecordingState::Ended),
        limit: Limit::MAX,
        ..ListRequest::default()
    });
    same(PauseRequest { duration: Some(Duration::new(1, 1)) });
    same(UploadRequest { all: true, wait: Wait::new(Duration::from_millis(300)), ..UploadRequest::default() });
    same(AdoptRequest { recording: Some("bag".into()), recover: true, ..AdoptRequest::default() });
    same(RmRequest { force: true, ..RmRequest::new("drive".parse().unwrap(), RemoveFrom::Both) });
    same(ReconcileRequest { name: Some("d*".into()), deep: true, ..ReconcileRequest::default() });
}

#[test]
fn every_verb_sends_what_it_reads() {
    for verb in Verb::ALL {
        let mut given = Params::default();
        for (name, value) in [("recording", "drive"), ("from", "local"), ("job", "01KAV3ZJ4R8X0Q5T2W7Y9B1C3D")] {
            if verb.parameters().iter().any(|param| param.name == name) {
                given = given.with(name, value);
            }
        }
        assert_eq!(verb.normalize(&given), Ok(given), "{verb}");
    }
}

#[test]
fn parameters_that_contradict_each_other_or_are_missing_are_refused_with_a_way_out() {
    for (result, hint) in [
        (Upload::parse(&of_selector("")).map(drop), "upload?all=true"),
        (Upload::parse(&of_selector("recording=a;all")).map(drop), "name one of them"),
        (Reconcile::parse(&of_selector("")).map(drop), "?name=GLOB"),
        (Reconcile::parse(&of_selector("recording=a;name=b")).map(drop), "give one of them"),
        (Reconcile::parse(&of_selector("all;restore")).map(drop), "name=GLOB"),
        (Info::parse(&of_selector("")).map(drop), "list tells the names"),
        (Rm::parse(&of_selector("from=local")).map(drop), "never everything"),
        (Rm::parse(&of_selector("recording=a")).map(drop), "from=both"),
        (Rm::parse(&of_selector("recording=a;from=here")).map(drop), "from=both"),
        (List::parse(&of_selector("state=endet")).map(drop), "did you mean ended?"),
    ] {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidParams);
        assert!(refusal.hint.as_deref().unwrap_or_default().contains(hint), "{refusal:?}");
    }
}

#[test]
fn a_wait_has_a_default_and_an_upper_bound() {
    let wait = |text| Upload::parse(&of_selector(text)).unwrap().wait.duration();
    assert_eq!(wait("all"), Duration::from_secs(2));
    assert_eq!(wait("all;wait=5s"), Duration::from_secs(5));
    assert_eq!(wait("all;wait=2h"), Duration::from_secs(600));
}
