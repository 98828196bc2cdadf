//! The behaviour that sessions require of every engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use sessiongate::format::{Update, WriteCondition};
use sessiongate::item::{Attribute, Item, Key, KeyType, Number};
use sessiongate::store::rotation::{Retirement, RotationOutcome};
use sessiongate::store::schema::SchemaError;
use sessiongate::store::table::{ConditionalWrite, CreateOutcome, Read, ScanOptions, Segment, Table};
use sessiongate::store::{Store, StoreError};

/// A value that no error may quote.
const CANARY: &str = "canary-4f1d";

/// Checks the whole contract, on two new tables whose names end in `suffix`.
pub(crate) async fn check(store: &Store, suffix: &str) {
    let rows = store.table(&format!("rows-{suffix}"), "sid", KeyType::Binary);
    let listed = store.table(&format!("listed-{suffix}"), "session_key", KeyType::String);

    println!("missing table");
    missing_table(&rows).await;
    println!("creation of tables");
    creation_of_tables(store, &rows, &listed).await;
    println!("invalid table name");
    invalid_table_name(store).await;
    println!("values round trip");
    values_round_trip(&rows).await;
    println!("create never replaces a row");
    create_never_replaces_a_row(&rows).await;
    println!("rotation never replaces a row");
    rotation_never_replaces_a_row(&rows).await;
    println!("update never creates a row");
    update_never_creates_a_row(&rows).await;
    println!("delete reports whether the row existed");
    delete_reports_whether_the_row_existed(&rows).await;
    println!("one of many concurrent updates succeeds");
    one_of_many_concurrent_updates_succeeds(&rows).await;
    println!("concurrent updates do not revive a deleted row");
    concurrent_updates_do_not_revive_a_deleted_row(&rows).await;
    println!("oversized row is rejected");
    oversized_row_is_rejected(&rows).await;
    println!("invalid requests are rejected without quoting values");
    invalid_requests_are_rejected_without_quoting_values(store, &rows).await;
    println!("scan returns every row once");
    scan_returns_every_row_once(&listed).await;
}

async fn missing_table(table: &Table) {
    let key = Key::binary(b"k");
    let touch = Update { set: vec![("iss".into(), number("1"))], conditions: vec![] };
    let missing = |error: StoreError| assert!(matches!(error, StoreError::NoSuchTable(_)), "{error}");
    missing(table.get(&key, Read::Strong).await.unwrap_err());
    missing(table.create(row(b"k", 1)).await.unwrap_err());
    missing(table.update(&key, &touch).await.unwrap_err());
    missing(table.delete(&key, &[]).await.unwrap_err());
    missing(table.scan(ScanOptions { page_size: 1, segment: None }).next_page().await.unwrap_err());
    assert_eq!(table.describe().await.unwrap(), None);
    let error = table.check_schema().await.unwrap_err();
    assert!(error.to_string().contains("sessiongate table create"), "{error}");
}

async fn creation_of_tables(store: &Store, rows: &Table, listed: &Table) {
    rows.provision(Some("exp")).await.unwrap();
    listed.provision(None).await.unwrap();
    rows.provision(Some("exp")).await.expect("an existing table with the expected key is kept");
    rows.check_schema().await.unwrap();
    listed.check_schema().await.unwrap();

    let state = rows.describe().await.unwrap().unwrap();
    assert_eq!((state.status.as_str(), state.billing.as_str()), ("ACTIVE", "PAY_PER_REQUEST"));
    assert_eq!((state.key.attribute.as_str(), state.key.kind.as_str(), state.key.sort), ("sid", "B", None));
    assert_eq!(state.ttl.attribute.as_deref(), Some("exp"));
    assert!(state.ttl.status.starts_with("ENABL"), "{:?}", state.ttl);
    let state = listed.describe().await.unwrap().unwrap();
    assert_eq!((state.key.kind.as_str(), state.ttl.status.as_str()), ("S", "DISABLED"));

    let wrong = store.table(rows.name(), "sid", KeyType::String);
    let error = wrong.check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::WrongKey { .. }), "{error}");
    let wrong = store.table(rows.name(), "session_key", KeyType::Binary);
    let error = wrong.provision(Some("exp")).await.unwrap_err();
    assert!(error.to_string().contains("`sid` of type B"), "{error}");
    let error = rows.provision(Some("expires")).await.unwrap_err();
    assert!(matches!(error, SchemaError::WrongTtl { .. }), "{error}");
}

async fn invalid_table_name(store: &Store) {
    let error = store.table("x", "sid", KeyType::Binary).provision(None).await.unwrap_err();
    let SchemaError::Store(StoreError::Invalid(text)) = error else { panic!("{error}") };
    assert!(text.contains("TableName") || text.contains("tableName"), "the message is DynamoDB's: {text}");
}

async fn values_round_trip(table: &Table) {
    let every = Item::from([
        ("sid".into(), Attribute::Binary(vec![0, 0xff, b'\n'])),
        ("text".into(), Attribute::String("ünï\0 \"\\ \u{1F36A}".into())),
        ("empty".into(), Attribute::String(String::new())),
        ("nothing".into(), Attribute::Binary(Vec::new())),
        ("fraction".into(), number("1700000000.123456")),
        ("long".into(), number("12345678901234567890123456789012345678")),
        ("negative".into(), number("-0.5")),
        ("yes".into(), Attribute::Bool(true)),
        ("null".into(), Attribute::Null),
        ("list".into(), Attribute::List(vec![Attribute::Null, Attribute::List(vec![])])),
        ("map".into(), Attribute::Map(Item::from([("a.b #c :d".into(), number("7"))]))),
        ("texts".into(), Attribute::StringSet(vec!["a".into(), "b".into()])),
        ("numbers".into(), Attribute::NumberSet(vec![Number::from_text("1"), Number::from_text("2")])),
        ("binaries".into(), Attribute::BinarySet(vec![vec![1], vec![2]])),
        // A reserved word, and a name that looks like an expression.
        ("size".into(), number("3")),
        ("a.b[0] = :v0 OR #n0".into(), number("4")),
    ]);
    let key = Key::binary(&[0, 0xff, b'\n']);
    assert_eq!(table.create(every.clone()).await.unwrap(), CreateOutcome::Created);
    assert_eq!(table.get(&key, Read::Strong).await.unwrap().as_ref(), Some(&every));

    let touch = Update {
        set: vec![("a.b[0] = :v0 OR #n0".into(), number("5"))],
        conditions: vec![WriteCondition::Equals("size".into(), number("3"))],
    };
    assert_eq!(table.update(&key, &touch).await.unwrap(), ConditionalWrite::Done);
    let read = table.get(&key, Read::Strong).await.unwrap().unwrap();
    assert_eq!(read.get("a.b[0] = :v0 OR #n0"), Some(&number("5")));
    assert_eq!(read.len(), every.len());

    for impossible in [Key::binary(b""), Key::binary(&[b'x'; 2049])] {
        assert_eq!(table.get(&impossible, Read::Eventual).await.unwrap(), None);
    }
}

async fn create_never_replaces_a_row(table: &Table) {
    assert_eq!(table.create(row(b"created", 1)).await.unwrap(), CreateOutcome::Created);
    assert_eq!(table.create(row(b"created", 2)).await.unwrap(), CreateOutcome::AlreadyExists);
    assert_eq!(read(table, b"created").await, Some(row(b"created", 1)));
}

/// The new row's key is random, but short ids may collide.
async fn rotation_never_replaces_a_row(table: &Table) {
    for key in [b"rotated", b"another"] {
        table.create(row(key, 1)).await.unwrap();
    }
    let retirement = Retirement::Delete(vec![WriteCondition::Exists]);
    let rotated = table.rotate(row(b"another", 2), &Key::binary(b"rotated"), &retirement).await.unwrap();
    assert_eq!(rotated, RotationOutcome::KeyExists);
    assert_eq!(read(table, b"rotated").await, Some(row(b"rotated", 1)));
    assert_eq!(read(table, b"another").await, Some(row(b"another", 1)));
}

async fn update_never_creates_a_row(table: &Table) {
    let key = Key::binary(b"touched");
    // `Table::update` adds the condition that the row exists.
    let touch = Update { set: vec![("iss".into(), number("20"))], conditions: vec![less("iss", "20")] };
    assert_eq!(table.update(&key, &touch).await.unwrap(), ConditionalWrite::Refused(None));
    let bare = Update { set: vec![("iss".into(), number("20"))], conditions: vec![] };
    assert_eq!(table.update(&key, &bare).await.unwrap(), ConditionalWrite::Refused(None));
    assert_eq!(read(table, b"touched").await, None);

    let mut expected = row(b"touched", 1);
    table.create(expected.clone()).await.unwrap();
    assert_eq!(table.update(&key, &touch).await.unwrap(), ConditionalWrite::Done);
    expected.insert("iss".into(), number("20"));
    assert_eq!(table.update(&key, &touch).await.unwrap(), ConditionalWrite::Refused(Some(expected.clone())));

    for (condition, holds) in [
        (less("iss", "20.5"), true),
        (less("iss", "20"), false),
        (WriteCondition::AtLeast("iss".into(), number("20")), true),
        (WriteCondition::AtLeast("iss".into(), number("20.1")), false),
        (WriteCondition::Equals("iss".into(), number("20.0")), true),
        (WriteCondition::Equals("iss".into(), Attribute::String("20".into())), false),
        (WriteCondition::Equals("missing".into(), Attribute::Null), false),
        (WriteCondition::Absent, false),
        (WriteCondition::Exists, true),
    ] {
        let nothing = Update { set: vec![], conditions: vec![condition.clone()] };
        let done = table.update(&key, &nothing).await.unwrap() == ConditionalWrite::Done;
        assert_eq!(done, holds, "{condition:?}");
    }
    assert_eq!(read(table, b"touched").await, Some(expected));
}

async fn delete_reports_whether_the_row_existed(table: &Table) {
    let key = Key::binary(b"deleted");
    let first = [WriteCondition::Equals("ver".into(), Attribute::number(1u64))];
    assert_eq!(table.delete(&key, &[]).await.unwrap(), ConditionalWrite::Refused(None));
    assert_eq!(table.delete(&key, &first).await.unwrap(), ConditionalWrite::Refused(None));
    table.create(row(b"deleted", 2)).await.unwrap();
    let refused = table.delete(&key, &first).await.unwrap();
    assert_eq!(refused, ConditionalWrite::Refused(Some(row(b"deleted", 2))));
    assert_eq!(table.delete(&key, &[]).await.unwrap(), ConditionalWrite::Done);
    table.create(row(b"deleted", 1)).await.unwrap();
    assert_eq!(table.delete(&key, &first).await.unwrap(), ConditionalWrite::Done);
    assert_eq!(read(table, b"deleted").await, None);
}

async fn one_of_many_concurrent_updates_succeeds(table: &Table) {
    table.create(row(b"contended", 1)).await.unwrap();
    let touch = Arc::new(Update {
        set: vec![("iss".into(), number("100"))],
        conditions: vec![WriteCondition::Exists, less("iss", "50")],
    });
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (table, touch) = (table.clone(), touch.clone());
            tokio::spawn(async move { table.update(&Key::binary(b"contended"), &touch).await })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        match task.await.unwrap().unwrap() {
            ConditionalWrite::Done => done += 1,
            ConditionalWrite::Refused(row) => assert_eq!(row.unwrap().get("iss"), Some(&number("100"))),
        }
    }
    assert_eq!(done, 1);
}

async fn concurrent_updates_do_not_revive_a_deleted_row(table: &Table) {
    let key = Key::binary(b"logged out");
    table.create(row(b"logged out", 1)).await.unwrap();
    let touches = (0..50u64).map(|iss| {
        let (table, key) = (table.clone(), key.clone());
        let touch = Update { set: vec![("iss".into(), Attribute::number(iss))], conditions: vec![] };
        tokio::spawn(async move { table.update(&key, &touch).await })
    });
    let touches: Vec<_> = touches.collect();
    assert_eq!(table.delete(&key, &[]).await.unwrap(), ConditionalWrite::Done);
    for touch in touches {
        touch.await.unwrap().unwrap();
    }
    assert_eq!(table.get(&key, Read::Strong).await.unwrap(), None);
}

async fn oversized_row_is_rejected(table: &Table) {
    let mut large = row(b"large", 1);
    table.create(large.clone()).await.unwrap();
    large.insert("data".into(), Attribute::String("x".repeat(400 * 1024)));
    let other = large.clone().into_iter().chain([("sid".to_owned(), Key::binary(b"larger").to_attribute())]);
    let created = table.create(other.collect()).await.unwrap_err();
    assert!(matches!(created, StoreError::TooLarge), "{created}");
    let touch = Update {
        set: vec![("data".into(), large.remove("data").unwrap())],
        conditions: vec![WriteCondition::Exists],
    };
    let touched = table.update(&Key::binary(b"large"), &touch).await.unwrap_err();
    assert!(matches!(touched, StoreError::TooLarge), "{touched}");
    assert_eq!(read(table, b"large").await, Some(row(b"large", 1)), "the old row stays");
}

async fn invalid_requests_are_rejected_without_quoting_values(store: &Store, table: &Table) {
    let invalid = |error: StoreError| {
        assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    };
    let with = |name: &str, value: Attribute| {
        let mut item = row(CANARY.as_bytes(), 1);
        item.insert(name.into(), value);
        item
    };
    let set = Attribute::StringSet(vec![CANARY.into(), CANARY.into()]);
    invalid(table.create(with("n", number(CANARY))).await.unwrap_err());
    invalid(table.create(with("n", number("1e999"))).await.unwrap_err());
    invalid(table.create(with("set", set)).await.unwrap_err());
    invalid(table.create(with("set", Attribute::StringSet(vec![]))).await.unwrap_err());
    invalid(table.create(with("sid", Attribute::String(CANARY.into()))).await.unwrap_err());
    invalid(table.create(with("sid", Attribute::Binary(vec![]))).await.unwrap_err());
    invalid(table.create(Item::from([("other".into(), number("1"))])).await.unwrap_err());
    invalid(table.get(&Key::string(CANARY), Read::Eventual).await.unwrap_err());
    let elsewhere = store.table(table.name(), CANARY, KeyType::Binary);
    invalid(elsewhere.get(&Key::binary(CANARY.as_bytes()), Read::Eventual).await.unwrap_err());
    assert_eq!(read(table, CANARY.as_bytes()).await, None);

    table.create(row(CANARY.as_bytes(), 1)).await.unwrap();
    let key = Update { set: vec![("sid".into(), Attribute::Binary(CANARY.into()))], conditions: vec![] };
    invalid(table.update(&Key::binary(CANARY.as_bytes()), &key).await.unwrap_err());
}

async fn scan_returns_every_row_once(table: &Table) {
    let keys: BTreeSet<String> = (0..25).map(|index| format!("key {index}")).collect();
    for key in &keys {
        table.create(Item::from([("session_key".into(), Attribute::String(key.clone()))])).await.unwrap();
    }
    assert_eq!(scanned(table, None).await, keys.iter().cloned().collect::<Vec<_>>());
    let mut parts = Vec::new();
    for index in 0..3 {
        parts.extend(scanned(table, Some(Segment { index, total: 3 })).await);
    }
    parts.sort();
    assert_eq!(parts, keys.into_iter().collect::<Vec<_>>());
}

async fn scanned(table: &Table, segment: Option<Segment>) -> Vec<String> {
    let mut scan = table.scan(ScanOptions { page_size: 4, segment });
    let mut keys = Vec::new();
    while let Some(page) = scan.next_page().await.unwrap() {
        assert!(page.len() <= 4);
        keys.extend(page.iter().map(|row| row["session_key"].as_str().unwrap().to_owned()));
    }
    assert_eq!(scan.next_page().await.unwrap(), None, "later calls return `None`, too");
    keys.sort();
    keys
}

async fn read(table: &Table, key: &[u8]) -> Option<Item> {
    table.get(&Key::binary(key), Read::Strong).await.unwrap()
}

fn row(key: &[u8], version: u64) -> Item {
    Item::from([
        ("sid".into(), Attribute::Binary(key.to_vec())),
        ("ver".into(), Attribute::number(version)),
        ("iss".into(), number("10")),
        ("data".into(), Attribute::String(CANARY.into())),
    ])
}

fn number(text: &str) -> Attribute {
    Attribute::Number(Number::from_text(text))
}

fn less(name: &str, value: &str) -> WriteCondition {
    WriteCondition::Less(name.into(), number(value))
}
