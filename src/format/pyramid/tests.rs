use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::claims::Claims;
use crate::format::WriteCondition;
use crate::item::Number;
use crate::time::Timestamp;

/// Rows, cookies and requests written by the real library.
fn vector() -> Value {
    let all: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/session-vectors.json")).unwrap();
    let mut vectors = all["vectors"].as_array().unwrap().iter();
    vectors.find(|vector| vector["id"] == "pyramid-dynamodb-sessions-0.1.3").unwrap().clone()
}

fn attribute(json: &Value) -> Attribute {
    let (kind, value) = json.as_object().unwrap().iter().next().unwrap();
    let text = value.as_str().unwrap();
    match kind.as_str() {
        "S" => Attribute::String(text.into()),
        "N" => Attribute::Number(Number::from_text(text)),
        "B" => Attribute::Binary(STANDARD.decode(text).unwrap()),
        other => panic!("{other}"),
    }
}

fn item(json: &Value) -> Item {
    json.as_object().unwrap().iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn cookie(vector: &Value) -> String {
    vector["cookie"].as_str().unwrap().strip_prefix("session_id=").unwrap().to_owned()
}

#[test]
fn cookie_and_row_of_the_library_are_decoded_and_encoded_exactly() {
    let (vector, pyramid) = (vector(), Pyramid::new("sid"));
    let reference = pyramid.parse_cookie(cookie(&vector).as_bytes()).unwrap();
    assert_eq!(reference.version, 1);
    assert_eq!(pyramid.cookie_value(&reference.id, 1), cookie(&vector));
    let row = item(&vector["item"]);
    assert_eq!(pyramid.key(&reference.id).to_attribute(), row["sid"]);
    let record = pyramid.decode(&row).unwrap();
    assert_eq!(Value::Object(record.claims.clone()), vector["decoded"]);
    assert_eq!((record.issued.as_secs(), record.expires.as_secs()), (1_795_289_267, 1_795_290_467));
    assert_eq!(pyramid.encode(&pyramid.key(&reference.id), &record).unwrap(), row, "byte for byte");
}

#[test]
fn touch_is_conditional_and_sets_what_the_library_sets() {
    let (vector, pyramid) = (vector(), Pyramid::new("sid"));
    let record = pyramid.decode(&item(&vector["item"])).unwrap();
    let now = Timestamp::from_millis(1_795_289_269_500);
    let times = TouchTimes {
        now,
        expires: Timestamp::from_secs(1_795_290_469),
        due_before: Timestamp::from_secs(1_795_289_268),
    };
    let Change { update: touch, record: touched } = pyramid.touch(&record, times);
    assert_eq!((touched.issued.as_secs(), touched.expires.as_secs()), (1_795_289_269, 1_795_290_469));
    let wire = &vector["reissue"]["wire"][0][1]["AttributeUpdates"];
    let expected: Vec<_> =
        ["iss", "exp"].map(|name| (name.to_owned(), attribute(&wire[name]["Value"]))).into_iter().collect();
    assert_eq!(touch.set, expected);
    assert_eq!(
        touch.conditions,
        [
            WriteCondition::Exists,
            WriteCondition::Equals("ver".into(), Attribute::number(1u64)),
            WriteCondition::Less("iss".into(), Attribute::number(1_795_289_268i64)),
            WriteCondition::AtLeast("exp".into(), Attribute::Number(Number::from_text("1795289269.500"))),
        ]
    );
}

#[test]
fn row_changed_by_the_library_is_encoded_exactly() {
    let (vector, pyramid) = (vector(), Pyramid::new("sid"));
    let row = item(&vector["modify"]["item_after"]);
    let record = pyramid.decode(&row).unwrap();
    assert_eq!(record.version, 2);
    let key = Key::from_attribute(&row["sid"]).unwrap();
    assert_eq!(pyramid.encode(&key, &record).unwrap(), row);
}

#[test]
fn change_is_conditional_and_writes_what_the_library_writes() {
    let (vector, pyramid) = (vector(), Pyramid::new("sid"));
    let record = pyramid.decode(&item(&vector["item"])).unwrap();
    let after = item(&vector["modify"]["item_after"]);
    let changed = pyramid.decode(&after).unwrap();
    let times = ChangeTimes {
        now: changed.issued.plus(std::time::Duration::from_millis(300)),
        expires: changed.expires,
    };
    let change = pyramid.change(&record, changed.claims.clone(), times).unwrap();
    assert_eq!(change.record, changed);
    assert_eq!(
        change.update.conditions,
        [WriteCondition::Exists, WriteCondition::Equals("ver".into(), Attribute::number(1u64))]
    );
    let mut row = item(&vector["item"]);
    row.extend(change.update.set);
    assert_eq!(row, after, "byte for byte");
}

#[test]
fn row_of_an_invalidated_session_is_empty() {
    assert_eq!(
        Pyramid::new("sid").decode(&item(&vector()["invalidate"]["item_after"])),
        Err(RowFault::Empty)
    );
}

#[test]
fn malformed_cookies_are_rejected() {
    let id = "ius9vZqjSFxq2yy-XFcYCYm9cBS9ypoXBadpRtQsX_w";
    let pyramid = Pyramid::new("sid");
    for version in [
        "",
        "Infinity",
        "NaN",
        "-1",
        "+1",
        "1.0",
        "1e3",
        " 1",
        "1 ",
        "٣",
        "1234567890123456789",
        "0x1",
        "1/2",
    ] {
        assert_eq!(
            pyramid.parse_cookie(format!("{id}/{version}").as_bytes()),
            Err(CookieFault::Version),
            "{version:?}"
        );
    }
    for cookie in [
        "",
        "/",
        "/1",
        id,
        "short/1",
        &format!("\"{id}/1\""),
        &format!("{}=/1", &id[1..]),
        &format!("{}/1", "a".repeat(129)),
    ] {
        assert_eq!(pyramid.parse_cookie(cookie.as_bytes()), Err(CookieFault::Shape), "{cookie:?}");
    }
}

#[test]
fn rows_with_missing_or_invalid_attributes_are_rejected() {
    let pyramid = Pyramid::new("sid");
    let whole = item(&vector()["item"]);
    for name in ["dat", "ver", "iss", "exp"] {
        let mut row = whole.clone();
        row.remove(name);
        assert_eq!(pyramid.decode(&row), Err(RowFault::Missing(name.into())));
        for wrong in
            [Attribute::Null, Attribute::Bool(true), Attribute::List(vec![]), Attribute::Binary(vec![])]
        {
            row.insert(name.into(), wrong);
            assert_eq!(pyramid.decode(&row), Err(RowFault::Type(name.into())));
        }
    }
    for number in ["-1", "1.5", "1e38", "NaN", ""] {
        let mut row = whole.clone();
        row.insert("ver".into(), Attribute::Number(Number::from_text(number)));
        assert_eq!(pyramid.decode(&row), Err(RowFault::Type("ver".into())), "{number}");
    }
    for payload in ["", "[]", "1", "{", "{\"a\":NaN}", &"[".repeat(100_000), &"{\"a\":".repeat(100_000)] {
        let mut row = whole.clone();
        row.insert("dat".into(), Attribute::String(payload.to_owned()));
        assert_eq!(pyramid.decode(&row), Err(RowFault::Payload("dat".into())));
    }
}

#[test]
fn fractional_times_are_kept_to_the_millisecond() {
    let mut row = item(&vector()["item"]);
    row.insert("exp".into(), Attribute::Number(Number::from_text("1795290467.4122979640960693359375")));
    assert_eq!(Pyramid::new("sid").decode(&row).unwrap().expires.as_millis(), 1_795_290_467_412);
}

proptest! {
    #[test]
    fn parsing_a_cookie_never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pyramid::new("sid").parse_cookie(&value);
    }

    #[test]
    fn encoded_row_decodes_to_the_same_record(text in ".*", number in any::<i64>(), float in -1e300..1e300f64) {
        let claims = Claims::from_iter([
            (text.clone(), Value::from(text)),
            ("n".into(), number.into()),
            ("f".into(), float.into()),
        ]);
        let at = Timestamp::from_secs(1);
        let record = SessionRecord { claims, version: 1, issued: at, created: None, expires: at, retired: false,
            successor: None, predecessor: None, renewal: Renewal::Realm, stored: Item::new() };
        let pyramid = Pyramid::new("sid");
        let key = pyramid.key(&SessionId::new("x"));
        prop_assert_eq!(pyramid.decode(&pyramid.encode(&key, &record).unwrap()).unwrap(), record);
    }
}

#[test]
fn claims_that_could_not_be_read_back_are_not_written() {
    let row = item(&vector()["item"]);
    let format = Pyramid::new("sid");
    let record = format.decode(&row).unwrap();
    let now = record.issued;
    let deep = (0..64).fold(Value::from(1), |inner, _| Value::Array(vec![inner]));
    for claim in [deep, Value::Array(vec![Value::Null; 10_000])] {
        let claims = Claims::from_iter([("a".to_owned(), claim)]);
        let change = format.change(&record, claims, ChangeTimes { now, expires: now });
        assert_eq!(change, Err(EncodeFault::Unreadable));
    }
}
