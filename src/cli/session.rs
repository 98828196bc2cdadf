//! `sessiongate session`: creates, shows, lists and ends sessions. A session is selected by its ref or by its cookie. Its
//! id is never printed, and its cookie only by the command that creates the session.

pub(super) mod purge;

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::claims::Claims;
use crate::format::{CookieFault, Format, parse_claims};
use crate::item::{Item, Key};
use crate::session::destroy::{Destroyed, destroy};
use crate::session::judge::Policy;
use crate::session::reference::Ref;
use crate::session::{self, cookie};
use crate::store::table::{Read, ScanOptions};
use crate::time::Clock;

use super::args::{ConfigFile, Create, List, Revoke, SessionSelector, Show};
use super::context::{self, IfMissing, RealmContext};
use super::failure::{CommandResult, Failure};
use super::output::{self, GOOD};
use super::row::{ClaimsDisplay, JudgedRow};

/// Scan options: the pages are small enough to show the first rows soon.
const PAGE: ScanOptions = ScanOptions { page_size: 500, segment: None };

/// Maximum size of claims or a cookie that a command reads, in bytes: more than a session or a Cookie header may have.
const MAX_INPUT: u64 = 1024 * 1024;

pub(super) fn create(args: Create, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let mut claims = match &args.claims_json {
        Some(source) => read_claims(source)?,
        None => Claims::new(),
    };
    claims.extend(args.claims);
    let now = Clock.wall();
    super::block_on(async {
        let realm = RealmContext::open(&config, args.realm.realm.as_deref(), IfMissing::Create).await?;
        let policy = Policy::new(&realm.config);
        let created = session::create(realm.format.as_ref(), &realm.table, &policy, claims, now).await?;
        let name = &realm.config.cookie.name;
        let value = String::from_utf8_lossy(created.cookie.expose()).into_owned();
        let mut stdout = output::stdout();
        if args.json {
            let line = json!({
                "realm": realm.config.name,
                "ref": created.reference.to_string(),
                "cookie": { "name": name, "value": value },
                "expires": output::unix_seconds(created.record.expires),
            });
            writeln!(stdout, "{}", output::json(&line))?;
        } else {
            writeln!(stdout, "{name}={value}")?;
        }
        let expires = output::relative(created.record.expires, now);
        let reference = created.reference;
        output::print_status(format_args!("{GOOD}session {reference}{GOOD:#} created, expires {expires}"))?;
        Ok(())
    })
}

pub(super) fn show(args: &Show, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    super::block_on(async {
        let realm = RealmContext::open(&config, args.realm.realm.as_deref(), IfMissing::Fail).await?;
        let (key, item) = find(&realm, &args.selector).await?;
        let row = JudgedRow::judge(&realm, &key, &item, Clock.wall());
        let mut stdout = output::stdout();
        if args.json {
            writeln!(stdout, "{}", output::json(&row.to_json(ClaimsDisplay::Show)))?;
        } else {
            write!(stdout, "{}", row.to_text())?;
        }
        Ok(())
    })
}

pub(super) fn list(args: &List, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let claims = if args.claims { ClaimsDisplay::Show } else { ClaimsDisplay::Hide };
    super::block_on(async {
        let realm = RealmContext::open(&config, args.realm.realm.as_deref(), IfMissing::Fail).await?;
        let (mut read, mut matching, mut live) = (0_usize, 0_usize, 0_usize);
        let mut scan = realm.table.scan(PAGE);
        while let Some(page) = scan.next_page().await? {
            let now = Clock.wall();
            let mut stdout = output::stdout();
            for item in &page {
                let Some(key) = key_of(&realm, item) else { continue };
                let row = JudgedRow::judge(&realm, &key, item, now);
                read += 1;
                if !matches_filters(args, &row) {
                    continue;
                }
                matching += 1;
                live += usize::from(row.is_live());
                if args.json {
                    writeln!(stdout, "{}", output::json(&row.to_json(claims)))?;
                } else {
                    writeln!(stdout, "{}", row.to_line(claims))?;
                }
            }
        }
        let noun = if read == 1 { "row" } else { "rows" };
        let read = format!("{read} {noun} in table `{}`", realm.table.name());
        if args.claim_filters.is_empty() && !args.live && !args.expired {
            output::print_status(format_args!("{read}, {live} of them live"))?;
        } else {
            output::print_status(format_args!("{read}, {matching} match, {live} of these live"))?;
        }
        Ok(())
    })
}

fn matches_filters(args: &List, row: &JudgedRow) -> bool {
    let has_claims =
        || row.claims().is_some_and(|claims| args.claim_filters.iter().all(|filter| filter.holds(claims)));
    (args.claim_filters.is_empty() || has_claims())
        && (!args.live || row.is_live())
        && (!args.expired || row.claims().is_some() && !row.is_live())
}

pub(super) fn revoke(args: &Revoke, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    super::block_on(async {
        let realm = RealmContext::open(&config, args.realm.realm.as_deref(), IfMissing::Fail).await?;
        let (key, row) = find(&realm, &args.selector).await?;
        let reference = Ref::from_key(&key);
        let predecessor = realm.format.decode(&row).ok().and_then(|record| record.predecessor);
        match destroy(&*realm.format, &realm.table, &key, predecessor.as_deref()).await? {
            Destroyed::Deleted(deleted) => {
                let deleted = Ref::from_key(&deleted);
                if deleted == reference {
                    output::print_status(format_args!("{GOOD}session {reference}{GOOD:#} revoked"))?;
                } else {
                    output::print_status(format_args!(
                        "{GOOD}session {reference}{GOOD:#} revoked; it had changed its id, and its new ref was {deleted}"
                    ))?;
                }
                let ttl = realm.config.cache.ttl;
                if !ttl.is_zero() {
                    let ttl = humantime::format_duration(ttl);
                    output::print_status(format_args!(
                        "A running gateway may use its cached copy of the session for up to {ttl}"
                    ))?;
                }
                Ok(())
            }
            Destroyed::Absent => Err(Failure::refused(format!("session {reference} no longer exists"))),
            Destroyed::StillAlive => Err(Failure::refused(format!(
                "session {reference} was not ended: its row does not contain its new id, or other writers kept \
                 changing it"
            ))),
        }
    })
}

/// Reads the row of the selected session.
async fn find(realm: &RealmContext, selector: &SessionSelector) -> Result<(Key, Item), Failure> {
    match (&selector.reference, &selector.cookie) {
        (Some(reference), _) => {
            let wanted = Ref::parse(reference).ok_or_else(|| {
                Failure::usage("a ref has 16 hex digits")
                    .hint("`sessiongate session list` shows refs; a cookie is given with `--cookie`")
            })?;
            find_by_ref(realm, wanted).await
        }
        (None, Some(cookie)) => find_by_cookie(realm, cookie).await,
        (None, None) => Err(Failure::usage("neither a ref nor a cookie was given")),
    }
}

/// Finds a session by its ref. Scans the whole table, because refs are not stored, and because a second session could
/// have the same ref.
async fn find_by_ref(realm: &RealmContext, wanted: Ref) -> Result<(Key, Item), Failure> {
    let mut found: Option<(Key, Item)> = None;
    let mut scan = realm.table.scan(PAGE);
    while let Some(page) = scan.next_page().await? {
        for item in page {
            let Some(key) = key_of(realm, &item).filter(|key| Ref::from_key(key) == wanted) else { continue };
            if found.as_ref().is_some_and(|(other, _)| *other != key) {
                return Err(Failure::refused(format!("two sessions have the ref {wanted}"))
                    .hint("select the session by its cookie, with `--cookie`"));
            }
            found = Some((key, item));
        }
    }
    found.ok_or_else(|| {
        Failure::refused(format!("there is no session {wanted} in table `{}`", realm.table.name()))
    })
}

async fn find_by_cookie(realm: &RealmContext, argument: &str) -> Result<(Key, Item), Failure> {
    let text = cookie_text(argument)?;
    let values = cookie_values(&text, &realm.config.cookie.name);
    let [value] = values.as_slice() else {
        let count = values.len();
        return Err(Failure::refused(format!(
            "the Cookie header has {count} cookies named `{}` instead of one",
            realm.config.cookie.name
        )));
    };
    let refused = |fault| Failure::refused(describe_fault(fault, realm.format.as_ref()));
    let reference = realm.format.parse_cookie(value).map_err(refused)?;
    let key = realm.format.key(&reference.id);
    match realm.table.get(&key, Read::Strong).await? {
        Some(item) => Ok((key, item)),
        None => Err(Failure::refused(format!(
            "session {} is not in table `{}`",
            Ref::from_key(&key),
            realm.table.name()
        ))),
    }
}

/// Describes the error in a cookie, and the expected form of cookies in `format`.
pub(super) fn describe_fault(fault: CookieFault, format: &dyn Format) -> String {
    match fault {
        CookieFault::Shape => format!("{fault}: {}", format.cookie_shape()),
        CookieFault::Version | CookieFault::Signature => fault.to_string(),
    }
}

/// Returns the cookie of an argument; `-` reads stdin, which, unlike arguments, other users of the machine cannot see.
pub(super) fn cookie_text(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let text = read_limited(io::stdin(), "stdin")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Returns the values of the cookie `name` in `text`, which is a whole `Cookie` header or one bare value.
pub(super) fn cookie_values<'t>(text: &'t str, name: &str) -> Vec<&'t [u8]> {
    if is_bare_value(text, name) {
        return vec![cookie::unquoted(text.as_bytes())];
    }
    cookie::values(text.as_bytes(), name).collect()
}

/// Returns whether `text` is the bare value of a cookie rather than a `Cookie` header.
pub(super) fn is_bare_value(text: &str, name: &str) -> bool {
    // Text with a semicolon is a header, even if it has no cookie of this name.
    !text.contains(';') && cookie::values(text.as_bytes(), name).next().is_none()
}

fn key_of(realm: &RealmContext, item: &Item) -> Option<Key> {
    item.get(realm.table.key_attribute()).and_then(Key::from_attribute)
}

fn read_claims(source: &Path) -> Result<Claims, Failure> {
    let text = if source == Path::new("-") {
        read_limited(io::stdin(), "stdin")?
    } else {
        let name = source.display().to_string();
        let file = std::fs::File::open(source)
            .map_err(|error| Failure::usage(format!("cannot open `{name}`: {error}")))?;
        read_limited(file, &name)?
    };
    // The parser's message is not printed, because it quotes the claims.
    match serde_json::from_str(&text) {
        // The gateway's parser, which does not round large integers.
        Ok(Value::Object(_)) => parse_claims(text.as_bytes()).ok_or_else(|| {
            Failure::usage(
                "the claims are nested too deeply, have too many values, or contain an integer beyond 64 bits",
            )
        }),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(Failure::usage("the claims are not a JSON object").hint(r#"for example {"user": "alice"}"#))
        }
        Err(error) => Err(Failure::usage(format!(
            "the claims are not JSON: line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}

fn read_limited(source: impl io::Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    match source.take(MAX_INPUT + 1).read_to_string(&mut text) {
        Err(error) => Err(Failure::usage(format!("cannot read {name}: {error}"))),
        Ok(_) if text.len() as u64 > MAX_INPUT => Err(Failure::usage(format!("{name} has more than 1 MiB"))),
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_a_bare_value_or_a_header() {
        let values = |given| cookie_values(given, "sid");
        assert_eq!(values("abc/1"), [b"abc/1"]);
        assert_eq!(values("sid=abc/1"), [b"abc/1"]);
        assert_eq!(values("a=b; sid=abc/1; sid=x"), [b"abc/1" as &[u8], b"x"]);
        assert_eq!(values("abc="), [b"abc="]);
        assert_eq!(values("\"abc/1\""), [b"abc/1"]);
        assert!(values("a=b; c=d").is_empty());
    }

    #[test]
    fn input_is_limited() {
        let long = vec![b'x'; 1024 * 1024 + 1];
        assert!(read_limited(long.as_slice(), "stdin").is_err());
        assert!(read_limited(&long[1..], "stdin").is_ok());
    }
}
