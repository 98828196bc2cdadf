use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::claims::Claims;
use crate::time::Timestamp;

const ID: &str = "ius9vZqjSFxq2yy-XFcYCYm9cBS9ypoXBadpRtQsX_w";

fn keyed(current: &str, previous: &[&str]) -> Native {
    let secret = |text: &str| Secret::new(text.as_bytes());
    let keys =
        KeysConfig { current: secret(current), previous: previous.iter().copied().map(secret).collect() };
    Native::new("sid", "session_id", Some(keys))
}

#[test]
fn signed_cookie_is_accepted_with_the_current_and_previous_keys() {
    let old = keyed("old key", &[]);
    let cookie = old.cookie_value(&SessionId::new(ID), 7);
    let expected = SessionRef { id: SessionId::new(ID), version: 7 };
    assert_eq!(old.parse_cookie(cookie.as_bytes()), Ok(expected.clone()));
    assert_eq!(keyed("new key", &["old key"]).parse_cookie(cookie.as_bytes()), Ok(expected));
    assert_eq!(keyed("new key", &[]).parse_cookie(cookie.as_bytes()), Err(CookieFault::Signature));
}

#[test]
fn mac_covers_id_version_and_cookie_name() {
    let native = keyed("key", &[]);
    let cookie = native.cookie_value(&SessionId::new(ID), 1);
    let mac = cookie.rsplit_once('/').unwrap().1;
    assert_eq!(native.parse_cookie(format!("{ID}/2/{mac}").as_bytes()), Err(CookieFault::Signature));
    assert_eq!(native.parse_cookie(format!("{ID}/1").as_bytes()), Err(CookieFault::Shape));
    assert_eq!(native.parse_cookie(format!("{ID}/1/").as_bytes()), Err(CookieFault::Signature));
    let other = Native::new("sid", "other", native.keys.clone());
    assert_eq!(other.parse_cookie(cookie.as_bytes()), Err(CookieFault::Signature));
}

#[test]
fn mac_with_one_flipped_bit_is_rejected() {
    let native = keyed("key", &[]);
    let cookie = native.cookie_value(&SessionId::new(ID), 1).into_bytes();
    for at in cookie.len() - 43..cookie.len() {
        for bit in 0..8 {
            let mut forged = cookie.clone();
            forged[at] ^= 1 << bit;
            assert!(native.parse_cookie(&forged).is_err());
        }
    }
}

#[test]
fn claims_beyond_dynamodbs_limits_are_rejected_before_the_write() {
    let deep = (0..32).fold(json!(1), |inner, _| json!([inner]));
    let deep = Claims::from_iter([("a".to_owned(), deep)]);
    assert_eq!(map::from_claims(&deep), Err(EncodeFault::TooDeep));
    // DynamoDB would return 1e20 as an integer beyond 64 bits.
    for large in [1e126, 1e20, -1e20, 18_446_744_073_709_551_616.0, -9_223_372_036_854_775_808.0] {
        let large = Claims::from_iter([("a".to_owned(), json!(large))]);
        assert_eq!(map::from_claims(&large), Err(EncodeFault::Number));
    }
}

#[test]
fn retired_row_ends_to_the_millisecond() {
    let native = Native::new("sid", "session_id", None);
    let key = native.key(&SessionId::new(ID));
    let at = |millis: i64| Timestamp::from_millis(1_800_000_000_000 + millis);
    let record = SessionRecord {
        claims: Claims::from_iter([("user".to_owned(), json!("alice"))]),
        version: 1,
        issued: at(0),
        created: Some(at(0)),
        expires: at(1_200_000),
        retired: false,
        successor: None,
        predecessor: None,
        renewal: Renewal::Realm,
        stored: Item::new(),
    };
    let row = native.encode(&key, &record).unwrap();
    for (until, ttl) in [(1, 1), (600, 1), (1000, 1), (1001, 2), (1999, 2)] {
        let mut retired = row.clone();
        retired.extend(native.retire(&record, at(until), &key).unwrap().set);
        let decoded = native.decode(&retired).unwrap();
        assert_eq!((decoded.retired, decoded.expires), (true, at(until)));
        assert_eq!(retired["exp"], Attribute::number(1_800_000_000_i64 + ttl), "{until}");
    }
}

#[test]
fn integers_beyond_64_bits_are_rejected() {
    let row = |number: &str| {
        let data = Item::from([("id".to_owned(), Attribute::Number(Number::from_text(number)))]);
        map::to_claims(&data).map(|claims| claims["id"].clone())
    };
    assert_eq!(row("18446744073709551615"), Some(json!(u64::MAX)));
    assert_eq!(row("-9223372036854775808"), Some(json!(i64::MIN)));
    assert_eq!(row("18446744073709551616"), None);
    assert_eq!(row("-9223372036854775809"), None);
    assert_eq!(row("1.5"), Some(json!(1.5)));
}

/// Returns the value after it has been written and read: floats that are integers become integers.
fn as_read_back(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let text = number.as_f64().unwrap().to_string();
            text.parse::<i64>().map_or(number.into(), Value::from)
        }
        Value::Array(list) => list.into_iter().map(as_read_back).collect(),
        Value::Object(object) => {
            object.into_iter().map(|(name, value)| (name, as_read_back(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Floats in DynamoDB's range that are not integers beyond 64 bits, of every order of magnitude.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        -1e18..1e18f64,
        (-130..18, 1.0..10.0f64).prop_map(|(exponent, digits)| digits * 10f64.powi(exponent)),
        any::<i32>().prop_map(f64::from),
        Just(0.0),
        Just(-0.0),
    ]
    .prop_filter("in DynamoDB's range", |float| *float == 0.0 || float.abs() >= 1e-130)
}

fn claim() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        float().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn encoded_row_decodes_to_the_same_record(
        claims in prop::collection::btree_map(".*", claim(), 1..8),
        version in any::<u64>(),
        secs in 0i64..4_000_000_000,
    ) {
        let native = Native::new("sid", "session_id", None);
        let at = Timestamp::from_secs(secs);
        let claims: Claims = claims.into_iter().collect();
        let record = SessionRecord { claims, version, issued: at, created: Some(at), expires: at, retired: false,
            successor: None, predecessor: None, renewal: Renewal::Realm, stored: Item::new() };
        let key = native.key(&SessionId::new(ID));
        let row = native.encode(&key, &record).unwrap();
        let read = native.decode(&row).unwrap();
        prop_assert_eq!(&native.encode(&key, &read).unwrap(), &row);
        let claims = record.claims.into_iter().map(|(name, value)| (name, as_read_back(value))).collect();
        prop_assert_eq!(read, SessionRecord { claims, ..record });
    }

    #[test]
    fn floats_are_written_as_dynamodb_returns_them(float in float()) {
        let row = map::from_claims(&Claims::from_iter([("n".to_owned(), json!(float))])).unwrap();
        let text = row["n"].as_number().unwrap().as_str();
        prop_assert_eq!(text.parse::<f64>(), Ok(float));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "1"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        prop_assert!(digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction), "{}", text);
        prop_assert!(!fraction.ends_with('0') && text != "-0", "{}", text);
    }

    #[test]
    fn parsing_a_cookie_never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = keyed("key", &[]).parse_cookie(&value);
        let _ = Native::new("sid", "session_id", None).parse_cookie(&value);
    }
}
