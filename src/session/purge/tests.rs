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

/// Returns a row whose deadline is `left` seconds from now.
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

fn rules(format: &dyn Format) -> PurgeRules<'_> {
    PurgeRules { format, policy: POLICY, empty: EmptyRows::Keep }
}

#[test]
fn expired_rows_are_deleted_under_conditions_on_all_attributes_and_live_rows_kept() {
    let (pyramid, native) = (Pyramid::new("sid"), Native::new("sid", "sid", None));
    for format in [&pyramid as &dyn Format, &native] {
        for (left, is_expired) in [(-1, true), (-100_000, true), (0, false), (1, false)] {
            let item = row(format, left);
            match decide(&rules(format), &item, now()) {
                Decision::Expired(key, conditions) => {
                    assert!(is_expired, "{left}");
                    assert_eq!(key, Key::binary(b"key"));
                    assert_eq!(conditions.len(), item.len() - 1, "all but the key");
                    let is_key_or_compared = |(name, value): (&String, &Attribute)| {
                        name == "sid"
                            || conditions.contains(&WriteCondition::Equals(name.clone(), value.clone()))
                    };
                    assert!(item.iter().all(is_key_or_compared));
                }
                Decision::Live => assert!(!is_expired, "{left}"),
                Decision::Keep(reason) => panic!("{reason}"),
            }
        }
    }
}

#[test]
fn invalid_rows_are_kept_for_a_reason() {
    let pyramid = Pyramid::new("sid");
    let reason = |change: &dyn Fn(&mut Item)| {
        let mut item = row(&pyramid, -10);
        change(&mut item);
        match decide(&rules(&pyramid), &item, now()) {
            Decision::Keep(reason) => reason.to_string(),
            other @ (Decision::Live | Decision::Expired(..)) => panic!("{other:?}"),
        }
    };
    let set = |name: &'static str, value: Attribute| {
        move |item: &mut Item| {
            item.insert(name.to_owned(), value.clone());
        }
    };
    let text = |text: &str| Attribute::String(text.to_owned());
    assert!(reason(&|item| item.clear()).contains("missing"));
    assert!(reason(&set("dat", text("{"))).contains("cannot be decoded"));
    assert!(reason(&set("exp", text("1"))).contains("`exp`"));
    assert!(reason(&set("dat", text("{}"))).contains("empty"));
    assert!(reason(&set("sid", Attribute::Null)).contains("key"));
    let widen = |item: &mut Item| item.extend((0..MAX_COMPARED).map(|n| (format!("a{n}"), Attribute::Null)));
    assert!(reason(&widen).contains("more than 200"));
}

#[test]
fn row_without_creation_time_is_kept_if_there_is_a_lifetime() {
    let format = Native::new("sid", "sid", None);
    let policy = Policy { lifetime: Some(Duration::from_secs(50_000)), ..POLICY };
    let rules = PurgeRules { policy, ..rules(&format) };
    let mut item = row(&format, 100);
    assert!(matches!(decide(&rules, &item, now()), Decision::Expired(..)), "its lifetime has passed");
    item.remove("cre");
    assert_eq!(decide(&rules, &item, now()), Decision::Keep(KeepReason::NoCreationTime));
}

#[test]
fn empty_rows_are_deleted_after_their_deadline_if_configured() {
    let format = Pyramid::new("sid");
    let rules = PurgeRules { empty: EmptyRows::Expire, ..rules(&format) };
    for (left, is_expired) in [(-1, true), (1, false)] {
        let mut item = row(&format, left);
        item.insert("dat".to_owned(), Attribute::String("{}".to_owned()));
        let decision = decide(&rules, &item, now());
        assert_eq!(matches!(decision, Decision::Expired(..)), is_expired, "{left}: {decision:?}");
    }
}

#[test]
fn only_consecutive_outages_end_the_purge() {
    let unavailable = StoreError::Unavailable("timeout".into());
    let mut backoff = Backoff::new();
    for _ in 0..100 {
        assert!(backoff.is_retried(&StoreError::Throttled));
    }
    for _ in 1..MAX_ATTEMPTS {
        assert!(backoff.is_retried(&unavailable));
    }
    assert!(!backoff.is_retried(&unavailable));
}
