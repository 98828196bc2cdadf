mod hostile;
mod writes;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::environment::Environment;
use crate::config::parse;
use crate::format::{fingerprint, open};
use crate::item::Number;
use crate::time::Timestamp;

/// Cookies and rows written by the real frameworks.
const VECTORS: &str = include_str!("../../../tests/fixtures/session-vectors.json");

/// An environment in which the value of each variable is its name.
struct Named;

impl Environment for Named {
    fn cores(&self) -> usize {
        1
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        Some(name.into())
    }

    fn file(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

fn source(lines: &str) -> String {
    format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.dynamodb]\n[upstreams.a]\nservers = [\"http://a\"]\n\
         [[routes]]\npath = \"/\"\nsession = \"main\"\naccess = \"session\"\nupstream = \"a\"\n[sessions.main]\n{lines}\n"
    )
}

fn realm(lines: &str) -> RealmConfig {
    let (config, report) = parse(&source(lines), Path::new("gateway.toml"), &Named);
    config.unwrap_or_else(|| panic!("{report}")).realms.remove(0)
}

fn format(lines: &str) -> Box<dyn Format> {
    open(&realm(lines))
}

fn express() -> Box<dyn Format> {
    format("format = \"express\"\nkeys.current = { env = \"keyboard cat\" }")
}

fn vector(id: &str) -> Value {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    let mut found = all["vectors"].as_array().unwrap().iter().filter(|vector| vector["id"] == id);
    found.next().unwrap_or_else(|| panic!("no vector `{id}`")).clone()
}

/// Returns the value of the vector's cookie.
fn cookie(vector: &Value) -> &str {
    vector["cookie"].as_str().unwrap().split_once('=').unwrap().1
}

/// Parses an item in DynamoDB's JSON.
fn item(json: &Value) -> Item {
    json.as_object().unwrap().iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn attribute(json: &Value) -> Attribute {
    let (kind, value) = json.as_object().unwrap().iter().next().unwrap();
    let text = || value.as_str().unwrap();
    match kind.as_str() {
        "S" => Attribute::String(text().to_owned()),
        "N" => Attribute::Number(Number::from_text(text())),
        "B" => Attribute::Binary(STANDARD.decode(text()).unwrap()),
        "BOOL" => Attribute::Bool(value.as_bool().unwrap()),
        "NULL" => Attribute::Null,
        "L" => Attribute::List(value.as_array().unwrap().iter().map(attribute).collect()),
        "M" => Attribute::Map(item(value)),
        other => panic!("{other}"),
    }
}

/// Applies a write, whose conditions must hold.
fn applied(row: &Item, update: &Update) -> Item {
    assert!(holds(row, update), "{update:?}");
    let mut row = row.clone();
    row.extend(update.set.iter().cloned());
    row
}

fn holds(row: &Item, update: &Update) -> bool {
    update.conditions.iter().all(|condition| match condition {
        WriteCondition::Exists => !row.is_empty(),
        WriteCondition::Absent => row.is_empty(),
        WriteCondition::Lacks(name) => !row.contains_key(name),
        WriteCondition::Equals(name, value) => row.get(name) == Some(value),
        WriteCondition::Less(..) | WriteCondition::AtLeast(..) => panic!("layouts have no such condition"),
    })
}

/// Asserts that the cookie gives the row's key, and equals the one that the gateway would send.
fn check_cookie(format: &dyn Format, vector: &Value, row: &Item) {
    let cookie = cookie(vector);
    let parsed = format.parse_cookie(cookie.as_bytes()).unwrap();
    let schema = format.key_schema();
    assert_eq!(Some(&format.key(&parsed.id).to_attribute()), row.get(schema.attribute));
    assert_eq!(format.cookie_value(&parsed.id, parsed.version), cookie);
}

fn claims(json: &Value) -> Claims {
    let mut claims = json.as_object().unwrap().clone();
    claims.shift_remove("cookie");
    claims
}

/// Returns a format for each preset, some with and without keys.
fn presets() -> Vec<(&'static str, Box<dyn Format>)> {
    let keys = "\nkeys.current = { env = \"0123456789abcdef\" }";
    [
        ("express", keys),
        ("dynamodb-store", keys),
        ("connect-dynamodb-session", keys),
        ("flask-session", ""),
        ("flask-session", keys),
        ("dynamodb-session-web", ""),
        ("dynamodb-session-web", keys),
        ("rack", keys),
        ("adonis", keys),
        ("dysession", ""),
    ]
    .map(|(name, keys)| (name, format(&format!("format = \"{name}\"{keys}"))))
    .into()
}

#[test]
fn express_rows_of_each_version_are_decoded() {
    for (id, more, renewal) in [
        ("express-connect3_nomaxage", "", Renewal::Realm),
        ("express-connect3_maxage", "", own(3_600_123)),
        ("express-connect3_rolling", "key_attribute = \"sid\"\nlayout.key = \"p:{id}\"", own(600_000)),
        ("express-connect3_resave", "", own(3_600_000)),
        ("express-connect2_maxage", "", own(3_600_000)),
    ] {
        let vector = vector(id);
        let format =
            format(&format!("format = \"express\"\nkeys.current = {{ env = \"keyboard cat\" }}\n{more}"));
        for row in [
            &vector["item"],
            &vector["read_only_request"]["item_after"],
            &vector["modify_request"]["item_after"],
        ] {
            let row = item(row);
            check_cookie(&*format, &vector, &row);
            let record = format.decode(&row).unwrap();
            if id != "express-connect3_resave" {
                assert_eq!(record.renewal, renewal, "{id}");
            }
            assert_eq!(Some(record.expires), row["expires"].as_number().unwrap().as_unix_seconds());
            assert_eq!(record.version, fingerprint(row["sess"].as_str().unwrap().as_bytes()));
            let payload: Value = serde_json::from_str(row["sess"].as_str().unwrap()).unwrap();
            assert_eq!(record.claims, claims(&payload), "{id}");
        }
        assert_eq!(format.decode(&item(&vector["item"])).unwrap().claims, claims(&vector["decoded"]), "{id}");
    }
}

fn own(millis: u64) -> Renewal {
    Renewal::Own { timeout: Duration::from_millis(millis), end: Timestamp::NEVER }
}

#[test]
fn rows_of_other_express_stores_are_decoded() {
    let keys = "keys.current = { env = \"keyboard cat\" }";
    let vector_ = vector("express-packetloop");
    let packetloop = format(&format!("format = \"connect-dynamodb-session\"\n{keys}"));
    let row = item(&vector_["item"]);
    check_cookie(&*packetloop, &vector_, &row);
    let record = packetloop.decode(&row).unwrap();
    assert_eq!(record.claims, claims(&vector_["decoded"]));
    assert_eq!(record.expires, Timestamp::from_millis(1_795_293_232_245));

    let vector_ = vector("express-dynamodb_store");
    let store = format(&format!("format = \"dynamodb-store\"\n{keys}"));
    let row = item(&vector_["item"]);
    check_cookie(&*store, &vector_, &row);
    let record = store.decode(&row).unwrap();
    let mut expected = claims(&vector("express-packetloop")["decoded"]);
    expected.insert("at".into(), json!({}));
    assert_eq!(record.claims, expected);
    assert_eq!(record.renewal, own(3_600_000));
    let touched = item(&vector_["read_only_request"]["item_after"]);
    assert_eq!(store.decode(&touched).unwrap().version, record.version, "a touch keeps the version");
    let mut endless = row;
    endless.remove("expires");
    assert_eq!(store.decode(&endless), Err(RowFault::Missing("expires".into())));
}

#[test]
fn rows_of_a_declared_layout_are_decoded() {
    // @pwrdrvr/dynamodb-session-store, for which there is no preset.
    let vector = vector("express-pwrdrvr");
    let format = format(
        "format = \"layout\"\ntable = \"sessions\"\nkeys.current = { env = \"keyboard cat\" }\n\
         [sessions.main.layout]\ncookie = \"express\"\nkey = \"session#{id}\"\nkey_attribute = \"id\"\n\
         payload = \"sess\"\ncodec = \"map\"\nexpires = \"expires\"",
    );
    let row = item(&vector["item"]);
    check_cookie(&*format, &vector, &row);
    let record = format.decode(&row).unwrap();
    assert_eq!(record.claims["passport"], json!({ "user": "42" }));
    assert_eq!((record.expires, record.renewal), (Timestamp::from_secs(1_795_293_229), own(3_600_000)));
}

#[test]
fn declared_version_times_and_binary_key_are_used() {
    let format = format(
        "format = \"layout\"\ntable = \"sessions\"\n[sessions.main.layout]\ncookie = \"id-version\"\nkey = \"a{id}z\"\n\
         key_attribute = \"k\"\nkey_type = \"B\"\npayload = \"p\"\nexpires = \"e\"\nexpires_unit = \"iso8601\"\n\
         version = \"v\"\ncreated = \"c\"",
    );
    let id = "x".repeat(43);
    let parsed = format.parse_cookie(format!("{id}/7").as_bytes()).unwrap();
    assert_eq!(format.cookie_value(&parsed.id, 8), format!("{id}/8"));
    let row = item(&json!({
        "k": { "B": STANDARD.encode(format!("a{id}z")) }, "p": { "S": "{\"a\":1}" }, "v": { "N": "7" },
        "e": { "S": "2026-11-21T20:00:00Z" }, "c": { "S": "2026-11-21T19:00:00Z" },
    }));
    assert_eq!(format.key(&parsed.id).to_attribute(), row["k"]);
    let record = format.decode(&row).unwrap();
    assert_eq!((record.version, format.records_creation()), (7, true));
    assert_eq!(record.created, Some(Timestamp::from_secs(1_795_287_600)));
    let times = ChangeTimes { now: Timestamp::from_secs(5), expires: Timestamp::from_secs(1205) };
    let change = format.change(&record, Claims::from_iter([("b".into(), 2.into())]), times).unwrap();
    let changed = applied(&row, &change.update);
    assert_eq!(
        (&changed["p"], &changed["v"]),
        (&Attribute::String("{\"b\":2}".into()), &Attribute::number(8_u64))
    );
    assert_eq!(format.decode(&changed).unwrap(), change.record);

    // A row without a deadline expires a timeout after its creation, and is never reissued.
    let mut endless = row;
    endless.remove("e");
    let record = format.decode(&endless).unwrap();
    assert_eq!((record.expires, record.renewal), (Timestamp::from_secs(1_795_288_800), Renewal::Never));
}

#[test]
fn flask_rows_are_decoded() {
    for (id, keys) in [
        ("flask-session-0.8.0-msgpack", ""),
        ("flask-session-0.8.0-signed", "keys.current = { env = \"flask-vector-secret-key\" }"),
        ("flask-session-0.8.0-json", ""),
        ("flask-session-0.8.0-norefresh", ""),
        ("flask-session-0.8.0-notperm", ""),
    ] {
        let vector = vector(id);
        let format = format(&format!("format = \"flask-session\"\n{keys}"));
        let row = item(&vector["item"]);
        check_cookie(&*format, &vector, &row);
        let record = format.decode(&row).unwrap();
        let mut expected = claims(&vector["decoded"]);
        expected.insert("bin".into(), "AAH/".into());
        assert_eq!(record.claims, expected, "{id}");
        assert_eq!(record.renewal, Renewal::Realm);
        assert_eq!(record.expires.as_secs(), record.issued.as_secs() + 31 * 86_400);
    }
}

#[test]
fn dynamodb_session_web_rows_are_decoded_and_touched() {
    for (id, keys) in [
        ("dynamodb-session-flask-1.1.3-plain", ""),
        (
            "dynamodb-session-flask-1.1.3-signed",
            "keys.current = { env = \"sid-key-new\" }\nkeys.previous = [{ env = \"sid-key-old\" }]",
        ),
    ] {
        let vector = vector(id);
        let format = format(&format!("format = \"dynamodb-session-web\"\n{keys}"));
        let row = item(&vector["item"]);
        check_cookie(&*format, &vector, &row);
        let record = format.decode(&row).unwrap();
        assert_eq!(record.claims, claims(&vector["decoded"]));
        let created = record.created.unwrap();
        let end = Timestamp::from_secs(created.as_secs() + 2_678_400);
        assert_eq!(record.renewal, Renewal::Own { timeout: Duration::from_hours(2), end });

        // Compare with the library's own touch.
        let after = item(&vector["item_after_read"]);
        let now = format.decode(&after).unwrap().issued;
        let whole = Timestamp::from_secs(now.as_secs());
        let times = TouchTimes { now, expires: whole.plus(Duration::from_hours(2)), due_before: now };
        let touched = applied(&row, &format.touch(&record, times).update);
        assert_eq!(touched["expires"], after["expires"]);
        assert_eq!(touched["accessed"].as_str().unwrap()[..19], after["accessed"].as_str().unwrap()[..19]);
        assert_eq!(touched["data"], after["data"]);
    }
}

#[test]
fn rack_rows_are_decoded_and_touched() {
    let format =
        format("format = \"rack\"\ntimeout = \"1h\"\nkeys.current = { env = \"ruby-vector-secret-key\" }");
    let vector_ = vector("ruby-v4_json");
    let row = item(&vector_["item"]);
    check_cookie(&*format, &vector_, &row);
    let record = format.decode(&row).unwrap();
    assert_eq!(record.claims, claims(&vector_["decoded"]));
    assert_eq!(
        (record.issued.as_millis(), record.expires.as_millis()),
        (1_795_289_355_611, 1_795_292_955_611)
    );
    assert_eq!(format.ttl_attribute(), None);

    let after = item(&vector_["read_only_request"]["item_after"]);
    let (now, expires) = (Timestamp::from_secs(1_795_289_356), Timestamp::from_secs(1_795_292_956));
    let touch = format.touch(&record, TouchTimes { now, expires, due_before: now }).update;
    let touched = applied(&row, &touch);
    assert_eq!((&touched["expire_at"], &touched["data"]), (&after["expire_at"], &after["data"]));
    assert_eq!(format.decode(&touched).unwrap().issued, now);
    let mut locked = row.clone();
    locked.insert("locked_at".into(), Attribute::String("1795289360.6334095".into()));
    assert!(!holds(&locked, &touch), "a locked row is not touched");

    // Without `max_stale`, `expire_at` is the time of the write. The session does not expire then.
    let locking = vector("ruby-v4_json_lock");
    assert!(
        format.decode(&item(&locking["item"])).unwrap().expires > Timestamp::from_secs(1_795_289_360 + 3000)
    );
    let marshal = vector("ruby-v4_marshal");
    assert_eq!(format.decode(&item(&marshal["item"])), Err(RowFault::Payload("data".into())));
}

#[test]
fn adonis_rows_are_decoded_and_touched() {
    let format =
        format("format = \"adonis\"\nkeys.current = { env = \"adonis-vector-app-key-0123456789ab\" }");
    let vector = vector("adonis-session-8.1.0");
    let mut row = item(&vector["item"]);
    check_cookie(&*format, &vector, &row);
    let record = format.decode(&row).unwrap();
    assert_eq!(record.claims, claims(&vector["decoded"]));
    let touch = TouchTimes {
        now: record.issued,
        expires: Timestamp::from_millis(1_795_297_349_911),
        due_before: record.issued,
    };
    assert_eq!(applied(&row, &format.touch(&record, touch).update), item(&vector["item_after_touch"]));
    // The payload contains the id of its session, so it cannot be copied to another row.
    row.insert("key".into(), Attribute::String("another".into()));
    assert_eq!(format.decode(&row), Err(RowFault::Payload("value".into())));
}

#[test]
fn dysession_rows_are_decoded_but_cannot_be_changed() {
    let format = format("format = \"dysession\"");
    let vector = vector("django-dysession-1.1.1");
    let mut row = item(&vector["item"]);
    check_cookie(&*format, &vector, &row);
    let record = format.decode(&row).unwrap();
    assert_eq!(
        (record.claims["n"].clone(), record.claims["roles"].clone()),
        (7.into(), json!(["admin", "ops"]))
    );
    assert!(!record.claims.contains_key("PK"));
    assert_eq!((record.expires, record.renewal), (Timestamp::NEVER, Renewal::Never));
    row.insert("ttl".into(), Attribute::number(1_795_290_000_i64));
    let record = format.decode(&row).unwrap();
    assert_eq!((record.expires, record.renewal), (Timestamp::from_secs(1_795_290_000), Renewal::Never));
    assert!(!record.claims.contains_key("ttl"));
    let times = ChangeTimes { now: record.issued, expires: record.expires };
    assert!(matches!(format.change(&record, record.claims.clone(), times), Err(EncodeFault::Unsupported(_))));
}

#[test]
fn one_of_two_concurrent_touches_succeeds() {
    for (name, format) in presets().into_iter().filter(|(name, _)| *name != "dysession") {
        let (id, issued) = (format.new_id().unwrap(), Timestamp::from_secs(1_795_290_000));
        let row = format.encode(&format.key(&id), &new_record(issued)).unwrap();
        let record = format.decode(&row).unwrap();
        let now = issued.plus(Duration::from_mins(3));
        let times = TouchTimes { now, expires: now.plus(Duration::from_hours(1)), due_before: now };
        let touch = format.touch(&record, times).update;
        assert!(!holds(&Item::new(), &touch), "{name}: a deleted row is not recreated");
        let touched = applied(&row, &touch);
        assert!(!holds(&touched, &touch), "{name}: the second touch fails");
        let read = format.decode(&touched).unwrap();
        assert_eq!(
            (read.expires.as_secs() > record.expires.as_secs() - 3600, read.version),
            (true, record.version)
        );
    }
}

#[test]
fn change_is_conditional_and_writes_what_the_framework_would_write() {
    let vector = vector("express-connect3_maxage");
    let (row, format) = (item(&vector["item"]), express());
    let record = format.decode(&row).unwrap();
    let mut claims = record.claims.clone();
    claims.insert("user_id".into(), 43.into());
    let now = Timestamp::from_millis(1_795_289_700_500);
    let times = ChangeTimes { now, expires: now.plus(Duration::from_mins(5)) };
    let change = format.change(&record, claims, times).unwrap();

    let changed = applied(&row, &change.update);
    // The session's own timeout applies, as in the framework.
    assert_eq!(changed["expires"], Attribute::Number(Number::from_text("1795293300.123")));
    let old = row["sess"].as_str().unwrap();
    assert_eq!(changed["sess"].as_str().unwrap(), old.replace("\"user_id\":42", "\"user_id\":43"));
    assert_eq!(format.decode(&changed).unwrap(), change.record);
    // The write fails if the framework has written meanwhile, or the row has been deleted.
    assert!(!holds(&changed, &change.update));
    assert!(!holds(&Item::new(), &change.update));
    // `cookie` is reserved by the framework.
    let claims = Claims::from_iter([("cookie".into(), 1.into())]);
    assert!(matches!(format.change(&record, claims, times), Err(EncodeFault::Unsupported(_))));
}

#[test]
fn rows_with_values_that_json_has_no_type_for_are_not_changed() {
    let times = ChangeTimes {
        now: Timestamp::from_secs(1_795_290_000),
        expires: Timestamp::from_secs(1_795_300_000),
    };
    let flask = format("format = \"flask-session\"");
    let mut row = item(&vector("flask-session-0.8.0-msgpack")["item"]);
    let record = flask.decode(&row).unwrap();
    let result = flask.change(&record, record.claims.clone(), times);
    assert!(matches!(result, Err(EncodeFault::Unsupported(_))), "the row has bytes and a date");
    let plain = claims(&json!({ "_permanent": true, "user": "Zoë", "n": [-33, 1.5, 1_099_511_627_776_u64] }));
    row.insert("val".into(), Attribute::Binary(msgpack::encode(&plain).unwrap()));
    let record = flask.decode(&row).unwrap();
    let change = flask.change(&record, record.claims.clone(), times).unwrap();
    assert_eq!(applied(&row, &change.update)["val"], row["val"]);

    let row = item(&vector("flask-session-0.8.0-json")["item"]);
    let record = flask.decode(&row).unwrap();
    let change = flask.change(&record, record.claims.clone(), times).unwrap();
    assert_eq!(applied(&row, &change.update)["val"], row["val"], "a JSON payload stays JSON");

    let store = format("format = \"dynamodb-store\"\nkeys.current = { env = \"keyboard cat\" }");
    let row = item(&vector("express-dynamodb_store")["item"]);
    let record = store.decode(&row).unwrap();
    let change = store.change(&record, record.claims.clone(), times).unwrap();
    assert_eq!(applied(&row, &change.update)["sess"], row["sess"]);
}

/// Returns the result of giving a row a new id, and the id.
fn rotate(format: &dyn Format, row: &Item, claims: Claims) -> (SessionId, Result<Item, EncodeFault>) {
    let id = format.new_id().unwrap();
    let old = format.decode(row).unwrap();
    let now = Timestamp::from_secs(1_795_290_000);
    let expires = if old.renewal == Renewal::Never { old.expires } else { now.plus(Duration::from_mins(20)) };
    let record = SessionRecord { claims, version: 1, issued: now, expires, ..old };
    let encoded = format.encode(&format.key(&id), &record);
    (id, encoded)
}

#[test]
fn row_with_a_new_id_keeps_what_the_framework_wrote() {
    let web = "format = \"dynamodb-session-web\"";
    for (id, lines, payload) in [
        (
            "express-connect3_maxage",
            "format = \"express\"\nkeys.current = { env = \"keyboard cat\" }",
            "sess",
        ),
        (
            "express-dynamodb_store",
            "format = \"dynamodb-store\"\nkeys.current = { env = \"keyboard cat\" }",
            "sess",
        ),
        ("dynamodb-session-flask-1.1.3-plain", web, "data"),
        ("flask-session-0.8.0-json", "format = \"flask-session\"", "val"),
        ("django-dysession-1.1.1", "format = \"dysession\"", ""),
    ] {
        let format = format(lines);
        let mut row = item(&vector(id)["item"]);
        // An app may have attributes of its own, such as the key of an index.
        row.insert("owner".into(), Attribute::StringSet(vec!["a".into()]));
        let old = format.decode(&row).unwrap();
        let (new_id, rotated) = rotate(&*format, &row, old.claims.clone());
        let rotated = rotated.unwrap();
        let kept = [payload, "owner", "idle_timeout", "absolute_timeout", "created"];
        for name in kept.into_iter().filter(|name| row.contains_key(*name)) {
            assert_eq!(rotated[name], row[name], "{id}: {name}");
        }
        let record = format.decode(&rotated).unwrap();
        assert_eq!((&record.claims, record.renewal), (&old.claims, old.renewal), "{id}");
        assert_eq!(rotated[format.key_schema().attribute], format.key(&new_id).to_attribute(), "{id}");
        let unchanged = format.unchanged(&old);
        assert!(unchanged.len() > 1, "{id}: {unchanged:?}");
    }
    let adonis =
        format("format = \"adonis\"\nkeys.current = { env = \"app key of 32 characters, at least\" }");
    let id = adonis.new_id().unwrap();
    let row = adonis.encode(&adonis.key(&id), &new_record(Timestamp::from_secs(1_795_280_000))).unwrap();
    let (_, rotated) = rotate(&*adonis, &row, new_record(Timestamp::from_secs(0)).claims);
    assert!(adonis.decode(&rotated.unwrap()).is_ok(), "the payload names the new id");
}

#[test]
fn row_that_cannot_be_changed_gets_no_new_id_with_other_claims() {
    let flask = format("format = \"flask-session\"");
    let row = item(&vector("flask-session-0.8.0-msgpack")["item"]);
    let claims = flask.decode(&row).unwrap().claims;
    let (_, rotated) = rotate(&*flask, &row, claims);
    assert!(matches!(rotated, Err(EncodeFault::Unsupported(_))), "the row has bytes and a date");

    let dysession = format("format = \"dysession\"");
    let row = item(&vector("django-dysession-1.1.1")["item"]);
    let record = dysession.decode(&row).unwrap();
    let mut claims = record.claims.clone();
    claims.insert("user".into(), "eve".into());
    let (_, rotated) = rotate(&*dysession, &row, claims);
    assert!(matches!(rotated, Err(EncodeFault::Unsupported(_))));
    let covered = |name: &str| WriteCondition::Equals(name.to_owned(), row[name].clone());
    assert!(record.claims.keys().all(|name| dysession.unchanged(&record).contains(&covered(name))));
}

fn new_record(issued: Timestamp) -> SessionRecord {
    SessionRecord {
        claims: Claims::from_iter([
            ("user".into(), "Zoë".into()),
            ("roles".into(), json!(["admin", 1, null])),
        ]),
        version: 1,
        issued,
        created: Some(issued),
        expires: issued.plus(Duration::from_mins(20)),
        renewal: Renewal::Realm,
        retired: false,
        successor: None,
        predecessor: None,
        stored: Item::new(),
    }
}

#[test]
fn new_session_decodes_from_its_cookie_and_row() {
    let issued = Timestamp::from_secs(1_795_290_000);
    for (name, format) in presets() {
        let id = format.new_id().unwrap();
        let cookie = format.cookie_value(&id, 1);
        assert_eq!(format.parse_cookie(cookie.as_bytes()).unwrap().id, id, "{name}");
        assert_ne!(format.new_id().unwrap(), id);
        let row = format.encode(&format.key(&id), &new_record(issued)).unwrap();
        let record = format.decode(&row).unwrap();
        assert_eq!(record.claims, new_record(issued).claims, "{name}");
        assert!(record.expires >= new_record(issued).expires, "{name}");
    }
}

#[test]
fn new_ids_have_the_form_of_the_framework() {
    let shape = |name: &str, keys: &str| {
        let id = format(&format!("format = \"{name}\"\n{keys}")).new_id().unwrap();
        String::from_utf8(id.expose().to_vec()).unwrap()
    };
    let keys = "keys.current = { env = \"0123456789abcdef\" }";
    assert_eq!(shape("express", keys).len(), 32);
    assert_eq!(shape("flask-session", "").len(), 43);
    assert_eq!(shape("rack", keys).len(), 98);
    assert_eq!(shape("dynamodb-session-web", keys).len(), 43 + 1 + 27);
    let uuid = shape("adonis", keys);
    let parts: Vec<_> = uuid.split('-').map(str::len).collect();
    assert_eq!((parts, uuid.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'));
    assert!("89ab".contains(char::from(uuid.as_bytes()[19])));
    let django = shape("dysession", "");
    assert!(django.len() == 32 && django.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
}
