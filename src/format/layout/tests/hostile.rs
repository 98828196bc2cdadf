//! Forged and corrupt cookies and rows.

use proptest::prelude::*;

use super::*;

#[test]
fn signed_cookies_with_a_flipped_bit_or_truncated_are_rejected() {
    for (id, name, secret) in [
        ("express-connect3_maxage", "express", "keyboard cat"),
        ("flask-session-0.8.0-signed", "flask-session", "flask-vector-secret-key"),
        ("dynamodb-session-flask-1.1.3-signed", "dynamodb-session-web", "sid-key-new"),
        ("ruby-v4_json", "rack", "ruby-vector-secret-key"),
        ("adonis-session-8.1.0", "adonis", "adonis-vector-app-key-0123456789ab"),
    ] {
        let vector = vector(id);
        let good = cookie(&vector).as_bytes();
        let with = |keys: &str| format(&format!("format = \"{name}\"\n{keys}"));
        let format = with(&format!("keys.current = {{ env = \"{secret}\" }}"));
        let parsed = format.parse_cookie(good).unwrap();
        let rotated = with(&format!(
            "keys.current = {{ env = \"0123456789abcdef\" }}\nkeys.previous = [{{ env = \"{secret}\" }}]"
        ));
        assert_eq!(rotated.parse_cookie(good).unwrap(), parsed);
        let other = with("keys.current = { env = \"0123456789abcdef\" }");
        assert_eq!(other.parse_cookie(good), Err(CookieFault::Signature), "{name}");

        for cut in 0..good.len() {
            assert!(format.parse_cookie(&good[..cut]).is_err(), "{name}: {cut} bytes");
        }
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut forged = good.to_vec();
            forged[at] ^= 1 << bit;
            // Hex digits of percent-encoding have two cases, and Python ignores the trailing bits of base64.
            let is_same = format.parse_cookie(&forged).is_ok_and(|forged| forged == parsed);
            let has_spare_bits =
                matches!(name, "flask-session" | "dynamodb-session-web") && at == good.len() - 1;
            let in_hex = (at >= 1 && good[at - 1] == b'%') || (at >= 2 && good[at - 2] == b'%');
            let rejected = format.parse_cookie(&forged).is_err();
            assert!(rejected || has_spare_bits || (is_same && in_hex), "{name}: byte {at}, bit {bit}");
        }
    }
}

#[test]
fn unsigned_cookies_must_have_the_form_of_an_id() {
    let flask = format("format = \"flask-session\"");
    let django = format("format = \"dysession\"");
    let long = "a".repeat(257);
    for wrong in ["", "short", "0123456789abcde/", "0123456789abcdef ", "0123456789abcdéf", long.as_str()] {
        assert_eq!(flask.parse_cookie(wrong.as_bytes()), Err(CookieFault::Shape), "{wrong}");
        assert_eq!(django.parse_cookie(wrong.as_bytes()), Err(CookieFault::Shape), "{wrong}");
    }
    assert_eq!(django.parse_cookie("A".repeat(32).as_bytes()), Err(CookieFault::Shape));
    assert_eq!(flask.parse_cookie(&[b'a', 0xff]), Err(CookieFault::Shape));
    assert_eq!(express().parse_cookie(b"o4ZxEae4MvpPsj6S4j-TbBaQn_lh-85n"), Err(CookieFault::Shape));
}

#[test]
fn declared_length_and_alphabet_apply_to_unsigned_and_new_ids() {
    let layout = |ids: &str| {
        format(&format!("format = \"layout\"\ntable = \"t-1\"\nlayout = {{ expires = \"e\"{ids} }}"))
    };
    let strict = layout("");
    // PHP's ids with 6 bits a character, dynastore's, a UUID, Tomcat's with the route of its worker, and a prefix.
    for id in [
        "s95927m6sr5dt04d7bnsa4pl8h,-",
        "H5MBJ76YDE4XOEYOL6LICLDNEV5UDY7I3LMANLYLYTKUNWMXCWHA",
        "5e92644f-1389-47a6-9d3c-9a303b6c99ef",
        "39A3D1B9AB4C1C7D39A3D1B9AB4C1C7D.node1",
        "sess:fb384c5c3a69478c",
    ] {
        assert_eq!(strict.parse_cookie(id.as_bytes()).unwrap().id, SessionId::new(id), "{id}");
    }
    let own = layout(", ids = { length = [3, 12], alphabet = \"a-z0-9.:=\" }");
    for id in ["u:7", "u.7=", "abcdefghij.9"] {
        assert_eq!(strict.parse_cookie(id.as_bytes()), Err(CookieFault::Shape), "{id}");
        assert_eq!(own.parse_cookie(id.as_bytes()).unwrap().id, SessionId::new(id), "{id}");
    }
    for wrong in ["u7", "abcdefghij.99", "U:7", "u:7-", "u:7\n", "u:7é", ""] {
        assert_eq!(own.parse_cookie(wrong.as_bytes()), Err(CookieFault::Shape), "{wrong}");
    }
    assert_eq!(own.cookie_shape(), "3 to 12 characters of `.0-:=a-z`");

    // New ids have the declared form, and enough randomness if the maximum length allows it.
    for (ids, length) in [
        (", ids = { length = [3, 12], alphabet = \"a-z0-9.:=\" }", 12),
        (", ids = { length = [3, 1024], alphabet = \"a-z0-9.:=\" }", 39),
        (", ids = { length = [50, 60], alphabet = \"a-z0-9.:=\" }", 50),
        (", ids = { length = [3, 1024], alphabet = \"01\" }", 192),
        (", ids.length = 43", 43),
    ] {
        let own = layout(ids);
        let new = own.new_id().unwrap();
        assert_eq!(new.expose().len(), length, "{ids}");
        assert_eq!(own.parse_cookie(own.cookie_value(&new, 1).as_bytes()).unwrap().id, new, "{ids}");
        assert_ne!(own.new_id().unwrap(), new, "{ids}");
    }
    let flask = format("format = \"flask-session\"\nlayout.ids.length = 11");
    assert!(flask.parse_cookie(b"Hkg2nQ9XNUT").is_ok());
}

#[test]
fn invalid_rows_are_rejected() {
    let express = express();
    let row = item(&vector("express-connect3_maxage")["item"]);
    let with = |name: &str, value: Attribute| {
        let mut row = row.clone();
        row.insert(name.into(), value);
        express.decode(&row)
    };
    let text = |text: &str| Attribute::String(text.into());
    let payload = Err(RowFault::Payload("sess".into()));
    assert_eq!(with("type", text("something else")), Err(RowFault::Type("type".into())));
    assert_eq!(with("type", Attribute::Null), Err(RowFault::Type("type".into())));
    assert_eq!(with("expires", text("1795293216")), Err(RowFault::Type("expires".into())));
    assert_eq!(
        with("expires", Attribute::Number(Number::from_text("NaN"))),
        Err(RowFault::Type("expires".into()))
    );
    assert_eq!(with("sess", Attribute::Null), Err(RowFault::Type("sess".into())));
    assert_eq!(with("sess", text("{\"cookie\":{}}")), Err(RowFault::Empty));
    assert_eq!(with("sess", text("{}")), Err(RowFault::Empty));
    assert_eq!(with("sess", text("[1]")), payload);
    assert_eq!(with("sess", Attribute::Binary(b"{\"a\":\"\xff\"}".to_vec())), payload);
    assert_eq!(with("sess", text(&"{\"a\":".repeat(80_000))), payload);
    assert_eq!(with("id", text("other:x")), Err(RowFault::Type("id".into())));
    assert_eq!(with("id", Attribute::Binary(b"sess:\xff".to_vec())), Err(RowFault::Type("id".into())));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(400_000));
    assert_eq!(with("sess", text(&large)).unwrap().claims["a"].as_str().unwrap().len(), 400_000);
    // The framework's unconditional touch can leave a stub like this.
    let mut stub = row.clone();
    stub.remove("sess");
    assert_eq!(express.decode(&stub), Err(RowFault::Missing("sess".into())));
    let mut endless = row.clone();
    endless.remove("expires");
    let endless = express.decode(&endless).unwrap();
    assert_eq!((endless.expires, endless.renewal), (Timestamp::NEVER, Renewal::Never));

    let sess = row["sess"].as_str().unwrap();
    for cut in (0..sess.len()).filter(|cut| sess.is_char_boundary(*cut)) {
        assert_eq!(with("sess", text(&sess[..cut])), payload, "{cut} bytes");
    }
    let flask = format("format = \"flask-session\"");
    let row = item(&vector("flask-session-0.8.0-msgpack")["item"]);
    let Attribute::Binary(val) = &row["val"] else { panic!("bytes") };
    for cut in 0..val.len() {
        let mut row = row.clone();
        row.insert("val".into(), Attribute::Binary(val[..cut].to_vec()));
        assert_eq!(flask.decode(&row), Err(RowFault::Payload("val".into())), "{cut} bytes");
    }
}

proptest! {
    #[test]
    fn parsing_a_cookie_never_panics(value in prop::collection::vec(any::<u8>(), 0..200), text in "(s:|s%3A)?[a-z.%/-]{0,60}") {
        for (_, format) in presets() {
            let _ = format.parse_cookie(&value);
            let _ = format.parse_cookie(text.as_bytes());
        }
    }

    #[test]
    fn decoding_a_row_never_panics(
        payload in prop::collection::vec(any::<u8>(), 0..100), number in "[0-9.eE+-]{0,12}", text in ".{0,20}",
    ) {
        let values = [
            Attribute::Binary(payload), Attribute::Number(Number::from_text(number)), Attribute::String(text),
            Attribute::Map(Item::new()),
        ];
        for (_, format) in presets() {
            let mut row = format.encode(&format.key(&format.new_id().unwrap()), &new_record(Timestamp::from_secs(1))).unwrap();
            for name in row.keys().cloned().collect::<Vec<_>>() {
                for value in &values {
                    let old = row.insert(name.clone(), value.clone()).unwrap();
                    let _ = format.decode(&row);
                    row.insert(name.clone(), old);
                }
            }
        }
    }
}
