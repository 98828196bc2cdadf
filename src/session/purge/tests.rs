use super::*;
use crate::claims::Claims;
use crate::format::SessionRecord;
use crate::format::native::Native;
use crate::format::pyramid::Pyramid;

const POLICY: Policy =
    Policy { timeout: Duration::from_secs(1200), reissue_time: Duration::from_secs(120), lifetime: None };

fn now() -> Timestamp {
    Timestamp::from_secs(1_000_000)
}

/// A row whose deadline is so many seconds from now.
fn row(format: &dyn Format, left: i64) -> Item {
    let record = SessionRecord {
        claims: Claims::from_iter([("user".to_owned(), "alice".into())]),
        version: 3,
        issued: Timestamp::from_secs(now().as_secs() + left - 1200),
        created: Some(Timestamp::from_secs(900_000)),
        expires: Timestamp::from_secs(now().as_secs() + left),
        retired: false,
        successor: None,
        predecessor: None,
        renewal: crate::format::Renewal::Realm,
        stored: Item::new(),
    };
    format.encode(&Key::binary(b"key"), &record).unwrap()
}

fn rules(format: &dyn Format) -> Rules<'_> {
    Rules { format, policy: POLICY, empty: Empty::Leave }
}

#[test]
fn what_is_over_goes_as_it_was_read_and_nothing_else_does() {
    let (pyramid, native) = (Pyramid::new("sid"), Native::new("sid", "sid", None));
    for format in [&pyramid as &dyn Format, &native] {
        for (left, is_over) in [(-1, true), (-100_000, true), (0, false), (1, false)] {
            let item = row(format, left);
            match decide(&rules(format), &item, now()) {
                Decision::Over(key, as_read) => {
                    assert!(is_over, "{left}");
                    assert_eq!(key, Key::binary(b"key"));
                    assert_eq!(as_read.len(), item.len() - 1, "all but the key");
                    let is_of = |(name, value): (&String, &Attribute)| {
                        name == "sid"
                            || as_read.contains(&WriteCondition::Equals(name.clone(), value.clone()))
                    };
                    assert!(item.iter().all(is_of));
                }
                Decision::Live => assert!(!is_over, "{left}"),
                Decision::Leave(reason) => panic!("{reason}"),
            }
        }
    }
}

#[test]
fn what_is_not_understood_stays_for_a_reason() {
    let pyramid = Pyramid::new("sid");
    let decided = |change: &dyn Fn(&mut Item)| {
        let mut item = row(&pyramid, -10);
        change(&mut item);
        match decide(&rules(&pyramid), &item, now()) {
            Decision::Leave(reason) => reason.to_string(),
            other @ (Decision::Live | Decision::Over(..)) => panic!("{other:?}"),
        }
    };
    let set = |name: &'static str, value: Attribute| {
        move |item: &mut Item| {
            item.insert(name.to_owned(), value.clone());
        }
    };
    let text = |text: &str| Attribute::String(text.to_owned());
    assert!(decided(&|item| item.clear()).contains("missing"));
    assert!(decided(&set("dat", text("{"))).contains("cannot be decoded"));
    assert!(decided(&set("exp", text("1"))).contains("`exp`"));
    assert!(decided(&set("dat", text("{}"))).contains("empty"));
    assert!(decided(&set("sid", Attribute::Null)).contains("key"));
    let widen = |item: &mut Item| item.extend((0..MAX_COMPARED).map(|n| (format!("a{n}"), Attribute::Null)));
    assert!(decided(&widen).contains("more than 200"));
}

#[test]
fn a_row_without_a_beginning_is_not_taken_for_one_that_is_too_old() {
    let format = Native::new("sid", "sid", None);
    let policy = Policy { lifetime: Some(Duration::from_secs(50_000)), ..POLICY };
    let rules = Rules { policy, ..rules(&format) };
    let mut item = row(&format, 100);
    assert!(matches!(decide(&rules, &item, now()), Decision::Over(..)), "past its lifetime");
    item.remove("cre");
    assert_eq!(decide(&rules, &item, now()), Decision::Leave(Reason::Ageless));
}

#[test]
fn empty_rows_go_where_that_is_asked_for_and_their_deadline_has_passed() {
    let format = Pyramid::new("sid");
    let rules = Rules { empty: Empty::Expire, ..rules(&format) };
    for (left, is_over) in [(-1, true), (1, false)] {
        let mut item = row(&format, left);
        item.insert("dat".to_owned(), Attribute::String("{}".to_owned()));
        let decision = decide(&rules, &item, now());
        assert_eq!(matches!(decision, Decision::Over(..)), is_over, "{left}: {decision:?}");
    }
}
