use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::item::Number;
use crate::secret::Secret;

/// The `SECRET_KEY` of all vectors.
const SECRET: &str = "django-insecure-vector-key-0123456789abcdefghijklmnopqrstuvwxyz";
const DAY: Duration = Duration::from_hours(24);

fn vectors() -> Vec<Value> {
    let all: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/session-vectors.json")).unwrap();
    let of_django = |vector: &&Value| vector["id"].as_str().unwrap().starts_with("django-");
    all["vectors"].as_array().unwrap().iter().filter(of_django).cloned().collect()
}

fn vector(id: &str) -> Value {
    vectors().into_iter().find(|vector| vector["id"] == id).unwrap()
}

fn item(json: &Value) -> Item {
    let attribute = |json: &Value| match json.as_object().unwrap().iter().next().unwrap() {
        (kind, Value::String(text)) if kind == "S" => Attribute::String(text.clone()),
        (kind, Value::String(text)) if kind == "N" => Attribute::Number(Number::from_text(text)),
        // Types of other layouts, which these tests do not use.
        _ => Attribute::Null,
    };
    json.as_object().unwrap().iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn row(data: &str) -> Item {
    Item::from([(DATA.to_owned(), Attribute::String(data.to_owned()))])
}

fn keys(current: &str, previous: &[&str]) -> KeysConfig {
    let secret = |text: &str| Secret::new(text.as_bytes());
    KeysConfig { current: secret(current), previous: previous.iter().copied().map(secret).collect() }
}

fn keyed(current: &str, previous: &[&str]) -> Django {
    Django::new("session_key", Some(&keys(current, previous)), 14 * DAY, true)
}

fn django() -> Django {
    keyed(SECRET, &[])
}

fn endless() -> Django {
    Django::new("session_key", Some(&keys(SECRET, &[])), 14 * DAY, false)
}

/// Returns a row with `payload`, signed.
fn sealed(payload: &[u8], saved: i64) -> Item {
    row(&django().keyring.seal(payload, Envelope::Signing(Timestamp::from_secs(saved))))
}

fn claims(json: Value) -> Claims {
    let Value::Object(claims) = json else { panic!("not an object: {json}") };
    claims
}

fn data(item: &Item) -> &str {
    item[DATA].as_str().unwrap()
}

fn undecodable() -> RowFault {
    RowFault::Payload(DATA.into())
}

#[test]
fn vectors_are_decoded_or_rejected_with_the_expected_reason() {
    let (mut decoded_rows, mut rejected) = (0, 0);
    for vector in vectors() {
        let id = vector["id"].as_str().unwrap();
        if vector["format"] == "django-dysession" {
            // Another layout, without `data`.
            assert_eq!(django().decode(&item(&vector["item"])), Err(RowFault::Missing(DATA.into())));
            rejected += 1;
            continue;
        }
        let stored = match (vector.get("item"), vector["stored_data"].as_str()) {
            (Some(stored), _) => item(stored),
            (None, Some(text)) => row(text),
            // Not a row: other tests use it.
            (None, None) => continue,
        };
        let decoded = django().decode(&stored);
        if vector["serializer"] == "pickle" {
            assert_eq!(decoded, Err(RowFault::Pickle(DATA.into())), "{id}");
            rejected += 1;
            continue;
        }
        let record = decoded.unwrap_or_else(|fault| panic!("{id}: {fault}"));
        assert_eq!(Value::Object(record.claims.clone()), vector["decoded"], "{id}");
        assert_eq!(record.created.map(Timestamp::as_secs), created(&stored), "{id}");
        let is_fixed = vector["encoding"] == "legacy" || vector["config"]["opts"]["expiry"].is_string();
        assert_eq!(record.renewal == Renewal::Never, is_fixed, "{id}");
        if let Some(saved) = vector["signed_at"].as_i64() {
            assert_eq!(record.issued.as_secs(), saved, "{id}");
        } else {
            assert_eq!(record.issued, Timestamp::NEVER, "{id}");
        }

        let reference = vector["cookie"].as_str().unwrap().strip_prefix("sessionid=").unwrap();
        let reference = django().parse_cookie(reference.as_bytes()).unwrap();
        assert_eq!(django().key(&reference.id).to_attribute(), stored["session_key"], "{id}");
        assert_eq!(django().decode(&item(&vector["item_after_modify"])).unwrap().claims["n"], 8, "{id}");
        let unknown = vector["item_created_by_reading_unknown_cookie"].as_array();
        for made in unknown.into_iter().flatten() {
            if !id.contains("dj083-5.2") {
                assert_eq!(django().decode(&item(made)), Err(RowFault::Empty), "{id}");
            }
        }
        decoded_rows += 1;
    }
    assert_eq!((decoded_rows, rejected), (11, 6));
}

fn created(item: &Item) -> Option<i64> {
    item.get(CREATED).map(|created| created.as_number().unwrap().as_str().parse().unwrap())
}

#[test]
fn negative_vectors_are_rejected() {
    let vector = vector("django-negative");
    let signature = || RowFault::Signature(DATA.into());
    for (name, text) in vector["cases"].as_object().unwrap() {
        let expected = match name.as_str() {
            "last_mac_char_flipped" | "timestamp_changed" | "dot_prefix_removed" | "truncated" => signature(),
            "legacy_bad_hash" => signature(),
            "no_separator" | "empty" => undecodable(),
            other => panic!("{other}"),
        };
        assert_eq!(django().decode(&row(text.as_str().unwrap())), Err(expected), "{name}");
    }
    assert!(vector["cases"].as_object().unwrap().len() >= 7);
}

#[test]
fn intermediate_values_of_a_signature_equal_those_of_django() {
    let vector = vector("django-signing-intermediates");
    let step = |name: &str| vector["intermediates"][name].as_str().unwrap();
    let record = django().decode(&row(step("stored"))).unwrap();
    assert_eq!(record.issued.as_secs(), 1_795_288_924);
    assert!(step("stored").starts_with(&format!("{}:{}:", step("data_part"), step("timestamp_b62"))));
    // This checks the derived key and the MAC: with others, the result would differ.
    let resigned = django().keyring.resign(step("stored"), record.issued).unwrap();
    assert_eq!(resigned, step("stored"));
}

#[test]
fn touch_is_conditional_and_writes_what_django_writes() {
    let vector = vector("django-resign-touch");
    let (stored, resigned) = (vector["stored"].as_str().unwrap(), vector["resigned"].as_str().unwrap());
    let record = django().decode(&row(stored)).unwrap();
    let now = Timestamp::from_secs(vector["now"].as_i64().unwrap());
    let times = TouchTimes { now, expires: now.plus(14 * DAY), due_before: now };
    let touch = django().touch(&record, times);
    assert_eq!(touch.update.set, [(DATA.to_owned(), Attribute::String(resigned.to_owned()))]);
    let old = WriteCondition::Equals(DATA.to_owned(), Attribute::String(stored.to_owned()));
    assert_eq!(touch.update.conditions, [WriteCondition::Exists, old]);

    let touched = django().decode(&row(resigned)).unwrap();
    assert_eq!((touched.issued, touched.expires), (times.now, times.expires));
    assert_eq!((touched.version, touched.claims), (record.version, record.claims), "nothing else changes");
}

#[test]
fn ttl_is_updated_if_the_row_has_one() {
    let now = Timestamp::from_millis(1_795_300_000_700);
    let expires = Timestamp::from_secs(1_796_509_600);
    let ttl = |set: &[(String, Attribute)]| {
        set.iter().find(|(name, _)| name == TTL).map(|(_, ttl)| ttl.as_number().unwrap().as_str().to_owned())
    };
    let row = item(&vector("django-dj083-5.2-json")["item"]);
    let record = django().decode(&row).unwrap();
    let touch = django().touch(&record, TouchTimes { now, expires, due_before: now });
    assert_eq!(ttl(&touch.update.set).as_deref(), Some("1796509600"));
    for (set_expiry, expected) in [(json!(null), "1796509600"), (json!(60), "1795300060")] {
        let claims = claims(json!({ "a": 1, "_session_expiry": set_expiry }));
        let change = django().change(&record, claims, ChangeTimes { now, expires }).unwrap();
        assert_eq!(ttl(&change.update.set).as_deref(), Some(expected));
    }
    let without = SessionRecord { stored: self::row(data(&row)), ..record };
    assert_eq!(ttl(&django().touch(&without, TouchTimes { now, expires, due_before: now }).update.set), None);
}

#[test]
fn changed_row_decodes_to_the_expected_record() {
    for vector in vectors().iter().filter(|vector| vector["serializer"] == "json") {
        let before = item(&vector["item"]);
        let after = item(&vector["item_after_modify"]);
        let record = django().decode(&before).unwrap();
        let changed = django().decode(&after).unwrap();
        let saved = if changed.issued == Timestamp::NEVER { record.created } else { Some(changed.issued) };
        let now = saved.unwrap_or(Timestamp::from_secs(0)).plus(Duration::from_millis(300));
        let times = ChangeTimes { now, expires: now.plus(14 * DAY) };
        let change = django().change(&record, changed.claims.clone(), times).unwrap();
        let old = WriteCondition::Equals(DATA.to_owned(), before[DATA].clone());
        assert_eq!(change.update.conditions, [WriteCondition::Exists, old]);

        let mut row = before.clone();
        row.extend(change.update.set);
        assert_eq!(django().decode(&row).unwrap(), change.record, "{}", vector["id"]);
        assert_eq!(change.record.claims, changed.claims);
        assert_eq!(change.record.version, changed.version, "the payload is Django's byte for byte");
        assert_eq!(data(&row).contains(':'), data(&before).contains(':'), "legacy stays legacy");
        // Compressed bytes differ between zlib implementations; without compression the row equals Django's.
        if vector["encoding"] == "legacy" {
            assert_eq!(data(&row), data(&after));
        }
    }
}

/// Django before 3.1 cannot read the signing format.
#[test]
fn row_with_a_new_id_keeps_the_format_and_the_ttl() {
    for vector in vectors().iter().filter(|vector| vector["serializer"] == "json") {
        let before = item(&vector["item"]);
        let record = django().decode(&before).unwrap();
        let now = Timestamp::from_secs(1_795_300_000);
        let record = SessionRecord { issued: now, version: 1, ..record };
        let row = django().encode(&Key::string("new"), &record).unwrap();
        assert_eq!(data(&row).contains(':'), data(&before).contains(':'), "{}", vector["id"]);
        assert_eq!(row.contains_key(TTL), before.contains_key(TTL), "{}", vector["id"]);
        assert_eq!(row["session_key"], Attribute::String("new".into()));
        assert_eq!(django().decode(&row).unwrap().claims, record.claims);
    }
}

#[test]
fn payload_is_compressed_if_that_makes_it_smaller() {
    let item = |json: Value| {
        let at = Timestamp::from_secs(1_795_288_924);
        let record = SessionRecord {
            claims: claims(json),
            version: 1,
            issued: at,
            created: Some(at),
            expires: at,
            renewal: Renewal::Realm,
            retired: false,
            successor: None,
            predecessor: None,
            stored: Item::new(),
        };
        django().encode(&Key::string("k"), &record).unwrap()
    };
    // As Django 5.2 writes it.
    let short = "eyJhIjoxfQ:1xUqey:";
    let row = item(json!({ "a": 1 }));
    assert!(data(&row).starts_with(short), "{row:?}");
    assert_eq!(created(&row), Some(1_795_288_924));
    assert_eq!(row["session_key"], Attribute::String("k".into()));
    assert!(data(&item(json!({ "a": "a".repeat(100) }))).starts_with(".eJ"));
}

#[test]
fn signatures_with_sha1_and_with_previous_keys_are_valid() {
    // Computed with Python's `hmac`; Django 3.1 and 3.2 accept it.
    let sha1 = "eyJhIjoxfQ:1xUqey:W_kMntzSaZhxagkAvPHdLvv95nc";
    assert_eq!(django().decode(&row(sha1)).unwrap().claims["a"], 1);
    let signing = item(&vector("django-5.2-json")["item"]);
    let legacy = item(&vector("django-2.2-json")["item"]);
    for row in [&signing, &legacy, &row(sha1)] {
        assert!(keyed("another key, of today", &["and one", SECRET]).decode(row).is_ok());
        let wrong = RowFault::Signature(DATA.into());
        assert_eq!(keyed("another key, of today", &["and one"]).decode(row), Err(wrong.clone()));
        let none = Django::new("session_key", None, DAY, true);
        assert_eq!(none.decode(row), Err(wrong), "without keys no signature is valid");
    }
    // A write is signed with the current key.
    let rotated = keyed("another key, of today", &[SECRET]);
    let record = rotated.decode(&signing).unwrap();
    let now = Timestamp::from_secs(1_795_300_000);
    let touch = rotated.touch(&record, TouchTimes { now, expires: now, due_before: now });
    assert!(keyed("another key, of today", &[]).decode(&touch.update.set.into_iter().collect()).is_ok());
    let none = Django::new("session_key", None, DAY, true);
    let unsigned = none.touch(&record, TouchTimes { now, expires: now, due_before: now });
    assert!(none.decode(&unsigned.update.set.into_iter().collect()).is_err());
}

#[test]
fn session_expires_when_its_cookie_would() {
    let expiry = |claims: Value| {
        let record = django().decode(&sealed(claims.to_string().as_bytes(), 1000)).unwrap();
        (record.expires.as_millis(), record.renewal == Renewal::Never)
    };
    let cookie = 1_000_000 + 14 * 86_400_000;
    for (claims, expected) in [
        (json!({ "a": 1 }), (cookie, false)),
        (json!({ "_session_expiry": null, "a": 1 }), (cookie, false)),
        (json!({ "_session_expiry": 0 }), (cookie, true)),
        (json!({ "_session_expiry": 300 }), (1_300_000, true)),
        (json!({ "_session_expiry": -1 }), (999_000, true)),
        (json!({ "_session_expiry": "2026-12-21T01:02:03.456789+00:00" }), (1_797_814_923_456, true)),
    ] {
        assert_eq!(expiry(claims.clone()), expected, "{claims}");
        let record = endless().decode(&sealed(claims.to_string().as_bytes(), 1000)).unwrap();
        assert_eq!(record.expires, Timestamp::NEVER);
    }
    assert_eq!(django().decode(&sealed(br#"{"_session_expiry":[]}"#, 1)), Err(undecodable()));
    let far = django().decode(&sealed(br#"{"_session_expiry":99999999999}"#, i64::MAX)).unwrap();
    assert_eq!(far.expires, Timestamp::NEVER, "out of range");
}

#[test]
fn legacy_session_expires_by_ttl_or_creation() {
    let legacy = |expiry: Value, attributes: &[(&str, i64)]| {
        let payload = json!({ "a": 1, "_session_expiry": expiry }).to_string();
        let mut row = row(&django().keyring.seal(payload.as_bytes(), Envelope::Legacy));
        row.extend(attributes.iter().map(|(name, secs)| ((*name).to_owned(), Attribute::number(*secs))));
        django().decode(&row).unwrap().expires
    };
    let at = Timestamp::from_secs;
    let null = || Value::Null;
    assert_eq!(legacy(null(), &[]), Timestamp::NEVER);
    assert_eq!(legacy(null(), &[(CREATED, 1000)]), at(1000).plus(14 * DAY));
    assert_eq!(legacy(json!(60), &[(CREATED, 1000)]), at(1000).plus(14 * DAY), "there may be later saves");
    assert_eq!(legacy(json!(1_728_000), &[(CREATED, 1000)]), at(1000).plus(20 * DAY));
    assert_eq!(legacy(null(), &[(CREATED, 1000), (TTL, 5000)]), at(5000));
    assert_eq!(legacy(json!("1970-01-01T00:01:00"), &[(CREATED, 1000), (TTL, 5000)]), at(60));
}

#[test]
fn invalid_rows_are_rejected() {
    let decode = |row: Item| django().decode(&row);
    assert_eq!(decode(Item::new()), Err(RowFault::Missing(DATA.into())));
    assert_eq!(decode(sealed(b"{}", 1)), Err(RowFault::Empty));
    assert_eq!(decode(sealed(b"\x80\x05}\x94.", 1)), Err(RowFault::Pickle(DATA.into())));
    assert_eq!(decode(sealed(b"(dp0\n.", 1)), Err(RowFault::Pickle(DATA.into())));
    assert!(RowFault::Pickle(DATA.into()).to_string().contains("JSONSerializer"));
    for payload in [&b""[..], b"[]", b"1", b"{", b"{\"a\":NaN}", b"{\"a\":\"\xff\"}", b"\xff"] {
        assert_eq!(decode(sealed(payload, 1)), Err(undecodable()), "{payload:?}");
    }
    let whole = item(&vector("django-dj083-5.2-json")["item"]);
    for name in [DATA, CREATED, TTL] {
        let binary = Attribute::Binary(data(&whole).as_bytes().to_vec());
        for wrong in [Attribute::Null, Attribute::Bool(true), Attribute::List(vec![]), binary] {
            let mut row = whole.clone();
            row.insert(name.to_owned(), wrong);
            assert_eq!(decode(row), Err(RowFault::Type(name.into())));
        }
    }
    assert_eq!(decode([(DATA.to_owned(), Attribute::number(1i64))].into()), Err(RowFault::Type(DATA.into())));
    assert_eq!(decode(row("")), Err(undecodable()));
    assert_eq!(decode(row(":")), Err(undecodable()));
    assert_eq!(decode(row("::")), Err(RowFault::Signature(DATA.into())));
    assert_eq!(decode(row("ü:ü:ü")), Err(RowFault::Signature(DATA.into())));
}

#[test]
fn rows_truncated_or_with_a_flipped_bit_are_rejected() {
    for id in ["django-5.2-json", "django-2.2-json"] {
        let whole = item(&vector(id)["item"]);
        let text = data(&whole);
        for length in 0..text.len() {
            assert!(django().decode(&row(&text[..length])).is_err(), "{id}: {length} bytes");
        }
        for bit in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(django().decode(&row(&changed)).is_err(), "{id}: bit {bit}");
        }
    }
}

#[test]
fn compression_bombs_and_deep_nesting_are_rejected() {
    let bomb = sealed(&vec![b' '; 32 * 1024 * 1024], 1);
    assert!(data(&bomb).len() < 50_000);
    assert_eq!(django().decode(&bomb), Err(undecodable()));
    for payload in ["{\"a\":".repeat(100_000), format!("{{\"a\":{}", "[".repeat(100_000))] {
        assert_eq!(django().decode(&sealed(payload.as_bytes(), 1)), Err(undecodable()));
    }
    let many = format!("{{\"a\":[{}1]}}", "1,".repeat(20_000));
    assert_eq!(django().decode(&sealed(many.as_bytes(), 1)), Err(undecodable()));
}

#[test]
fn row_of_dynamodbs_maximum_size_is_decoded() {
    let payload = json!({ "a": "x".repeat(290_000) }).to_string();
    let legacy = row(&django().keyring.seal(payload.as_bytes(), Envelope::Legacy));
    assert!((380_000..400_000).contains(&data(&legacy).len()));
    assert_eq!(django().decode(&legacy).unwrap().claims["a"].as_str().unwrap().len(), 290_000);
}

#[test]
fn claims_that_could_not_be_read_back_are_not_written() {
    let record = django().decode(&item(&vector("django-5.2-json")["item"])).unwrap();
    let now = record.issued;
    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    for claims in [
        json!({}),
        json!({ "a": deep }),
        json!({ "a": vec![1; 20_000] }),
        json!({ "a": " ".repeat(2 * 1024 * 1024) }),
        json!({ "_session_expiry": [] }),
    ] {
        let claims = self::claims(claims);
        let change = django().change(&record, claims.clone(), ChangeTimes { now, expires: now });
        assert_eq!(change.unwrap_err(), EncodeFault::Unreadable);
        let made = SessionRecord { claims, ..record.clone() };
        assert_eq!(django().encode(&Key::string("k"), &made).unwrap_err(), EncodeFault::Unreadable);
    }
    // A change of a row that was never read has a condition that always fails.
    let unread = SessionRecord { stored: Item::new(), ..record };
    let change =
        django().change(&unread, claims(json!({ "a": 1 })), ChangeTimes { now, expires: now }).unwrap();
    assert!(change.update.conditions.contains(&WriteCondition::Equals(DATA.into(), Attribute::Null)));
}

#[test]
fn cookie_must_be_a_session_key() {
    let good = "79n475sjncwrl4g8bz2uaae6kudfywxx";
    let reference = django().parse_cookie(good.as_bytes()).unwrap();
    assert_eq!((reference.version, reference.id.expose()), (0, good.as_bytes()));
    assert_eq!(django().cookie_value(&reference.id, 7), good);
    for wrong in [
        "",
        &good[1..],
        &format!("{good}0"),
        &good.to_uppercase(),
        &format!("\"{}\"", &good[2..]),
        &good.replace('7', "-"),
        &good.replace("79", "é"),
    ] {
        assert_eq!(django().parse_cookie(wrong.as_bytes()), Err(CookieFault::Shape), "{wrong:?}");
    }
}

#[test]
fn new_ids_are_valid_and_unbiased() {
    assert!(django().parse_cookie(django().new_id().unwrap().expose()).is_ok());
    assert_ne!(django().new_id().unwrap(), django().new_id().unwrap());
    for wanted in LETTERS {
        let bytes = (0..=255).filter(|byte| letter(*byte) == Some(char::from(*wanted)));
        assert_eq!(bytes.count(), 7);
    }
}

proptest! {
    #[test]
    fn parsing_a_cookie_or_an_unsigned_row_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        let _ = django().parse_cookie(&bytes);
        prop_assert!(django().decode(&row(&text)).is_err());
    }

    #[test]
    fn decoding_a_signed_payload_never_panics(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = django().decode(&sealed(&payload, 1));
    }

    #[test]
    fn encoded_row_decodes_to_the_same_record(
        text in ".{0,200}", number in any::<i64>(), float in -1e300..1e300f64, saved in 0i64..10_000_000_000,
    ) {
        let claims = Claims::from_iter([
            ("text".into(), Value::from(text)),
            ("n".into(), number.into()),
            ("f".into(), float.into()),
        ]);
        let at = Timestamp::from_secs(saved);
        let record = SessionRecord {
            claims, version: 1, issued: at, created: Some(at), expires: at.plus(14 * DAY), renewal: Renewal::Realm, retired: false,
            successor: None, predecessor: None, stored: Item::new(),
        };
        let row = django().encode(&Key::string("k"), &record).unwrap();
        let back = django().decode(&row).unwrap();
        prop_assert_eq!(back, SessionRecord { version: row_version(&row), stored: self::row(data(&row)), ..record });
    }
}

fn row_version(row: &Item) -> u64 {
    fingerprint(&django().keyring.open(data(row)).unwrap().payload)
}
