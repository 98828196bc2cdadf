//! Conditions of writes, and what changes keep of the payload.

use super::*;

const KEYS: &str = "keys.current = { env = \"app key of 32 characters, at least\" }";

/// A layout in which every attribute is a claim.
const ATTRIBUTES: &str = "format = \"layout\"\ntable = \"sessions\"\nlayout = { expires = \"expires\" }";

fn with_keys(name: &str) -> Box<dyn Format> {
    format(&format!("format = \"{name}\"\n{KEYS}"))
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_795_290_300)
}

fn change_times() -> ChangeTimes {
    ChangeTimes { now: now(), expires: now().plus(Duration::from_mins(20)) }
}

fn touch(format: &dyn Format, row: &Item) -> Update {
    let times = TouchTimes { now: now(), expires: now().plus(Duration::from_mins(20)), due_before: now() };
    format.touch(&format.decode(row).unwrap(), times).update
}

fn new_row(format: &dyn Format) -> Item {
    let key = format.key(&format.new_id().unwrap());
    format.encode(&key, &new_record(Timestamp::from_secs(1_795_290_000))).unwrap()
}

#[test]
fn touch_fails_if_only_the_payload_has_changed() {
    for (name, payload) in [("express", "sess"), ("flask-session", "val"), ("rack", "data")] {
        let format = with_keys(name);
        let row = new_row(&*format);
        let record = format.decode(&row).unwrap();
        let claims = Claims::from_iter([("user".to_owned(), "eve".into())]);
        let other = format.change(&record, claims, change_times()).unwrap().record.stored[payload].clone();
        let changed: Item = row.clone().into_iter().chain([(payload.to_owned(), other)]).collect();
        let touch = touch(&*format, &row);
        assert!(holds(&row, &touch) && !holds(&changed, &touch), "{name}");
    }
    let attributes = format(ATTRIBUTES);
    let row = new_row(&*attributes);
    let touch = touch(&*attributes, &row);
    let changed: Item =
        row.clone().into_iter().chain([("user".to_owned(), Attribute::String("eve".into()))]).collect();
    assert!(holds(&row, &touch) && !holds(&changed, &touch));
}

#[test]
fn writes_of_a_row_with_more_attributes_than_an_expression_can_compare_compare_the_deadline() {
    let format = format(ATTRIBUTES);
    let mut row = new_row(&*format);
    row.extend((0..MAX_CONDITIONS).map(|index| (format!("claim{index}"), Attribute::Null)));
    let touch = touch(&*format, &row);
    let equals = |name: &str| WriteCondition::Equals(name.to_owned(), row[name].clone());
    let expected = [WriteCondition::Exists, equals("expires"), equals(format.key_schema().attribute)];
    assert_eq!(touch.conditions, expected);
    assert_eq!(format.unchanged(&format.decode(&row).unwrap()), expected);
}

#[test]
fn locked_rack_session_is_neither_touched_nor_changed_nor_given_a_new_id() {
    let rack = with_keys("rack");
    let mut row = new_row(&*rack);
    row.insert("locked_at".to_owned(), Attribute::String("1795290299.5".to_owned()));
    let record = rack.decode(&row).unwrap();
    let delete = Update { set: Vec::new(), conditions: rack.unchanged(&record) };
    let change = rack.change(&record, record.claims.clone(), change_times()).unwrap();
    assert!(!holds(&row, &delete) && !holds(&row, &touch(&*rack, &row)) && !holds(&row, &change.update));
    row.remove("locked_at");
    assert!(holds(&row, &delete) && holds(&row, &touch(&*rack, &row)) && holds(&row, &change.update));
}

#[test]
fn change_keeps_the_frameworks_wrapper_with_every_codec() {
    for codec in ["json", "map", "msgpack"] {
        for cookie in ["express", "adonis"] {
            let name = format!("{cookie}, {codec}");
            let format = format(&format!(
                "format = \"layout\"\ntable = \"sessions\"\n{KEYS}\ntimeout = \"1h\"\n\
                 layout = {{ cookie = \"{cookie}\", payload = \"p\", codec = \"{codec}\", expires = \"expires\" }}"
            ));
            let row = new_row(&*format);
            let record = format.decode(&row).unwrap();
            let mut claims = record.claims.clone();
            claims.insert("user".to_owned(), "eve".into());
            let change = format.change(&record, claims.clone(), change_times()).unwrap();
            let changed = format.decode(&applied(&row, &change.update)).unwrap();
            assert_eq!((changed.version, &changed.claims), (change.record.version, &claims), "{name}");
            // The session's own timeout, which express-session keeps in `cookie`.
            assert_eq!(changed.renewal, record.renewal, "{name}");

            let (id, rotated) = rotate(&*format, &row, claims.clone());
            let rotated = format.decode(&rotated.unwrap()).unwrap();
            assert_eq!((&rotated.claims, rotated.renewal), (&claims, record.renewal), "{name}");
            assert_eq!(rotated.stored["id"], format.key(&id).to_attribute(), "{name}");
        }
    }
}

#[test]
fn claims_with_names_that_express_reserves_are_rejected() {
    for (format, name, is_reserved) in [
        ("express", "cookie", true),
        ("express", "updated", false),
        ("dynamodb-store", "cookie", true),
        ("dynamodb-store", "updated", true),
    ] {
        let store = with_keys(format);
        let claims = Claims::from_iter([("user".into(), "a".into()), (name.into(), "2026-01-01".into())]);
        let record = SessionRecord { claims: claims.clone(), ..new_record(now()) };
        let created = store.encode(&store.key(&store.new_id().unwrap()), &record);
        assert_eq!(matches!(created, Err(EncodeFault::Unsupported(_))), is_reserved, "{format}: {name}");
        let record = store.decode(&new_row(&*store)).unwrap();
        let changed = store.change(&record, claims, change_times());
        assert_eq!(matches!(changed, Err(EncodeFault::Unsupported(_))), is_reserved, "{format}: {name}");
    }
}

#[test]
fn map_with_floats_as_dynamodb_returns_them_is_changed() {
    let store = with_keys("dynamodb-store");
    let mut row = new_row(&*store);
    let Some(Attribute::Map(payload)) = row.get_mut("sess") else { panic!("no map") };
    for (name, number) in [("tiny", "0.0000001"), ("large", "1000000000000000000"), ("half", "-0.5")] {
        payload.insert(name.to_owned(), Attribute::Number(Number::from_text(number)));
    }
    let record = store.decode(&row).unwrap();
    assert_eq!(record.claims["tiny"], json!(1e-7));
    let change = store.change(&record, record.claims.clone(), change_times()).unwrap();
    assert_eq!(applied(&row, &change.update)["sess"], row["sess"]);
}

/// The configuration has its own list of the attributes of each format.
#[test]
fn attribute_that_a_format_uses_is_refused_as_the_key() {
    let names = ["native", "pyramid", "django"].into_iter();
    let names = names.chain(presets().into_iter().map(|(name, _)| name).filter(|name| *name != "dysession"));
    for name in names {
        let keys = if matches!(name, "native" | "pyramid") { "table = \"sessions\"" } else { KEYS };
        let lines = format!("format = \"{name}\"\n{keys}");
        let format = format(&lines);
        let (key, successor) = (format.key(&format.new_id().unwrap()), Key::binary(b"other"));
        let record = SessionRecord { predecessor: Some(Box::new(successor.clone())), ..new_record(now()) };
        let mut row = format.encode(&key, &record).unwrap();
        row.extend(format.retire(&record, now(), &successor).into_iter().flat_map(|update| update.set));
        let locked = ["locked_at"].into_iter().filter(|_| name == "rack");
        for attribute in row.keys().map(String::as_str).chain(locked) {
            let (config, report) =
                parse(&source(&format!("{lines}\nkey_attribute = \"{attribute}\"")), Path::new(""), &Named);
            let is_key = attribute == format.key_schema().attribute;
            assert_eq!(config.is_some(), is_key, "{name}: {attribute}: {report}");
        }
    }
}
