//! `sessiongate session`: make, show, list and end sessions. A session is named by its ref, or by the cookie of who has
//! it; its id is never shown, and its cookie once, to who made it.

pub(super) mod purge;

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::claims::Claims;
use crate::format::{CookieFault, Format};
use crate::item::{Item, Key};
use crate::session::destroy::{Destroyed, destroy};
use crate::session::judge::Policy;
use crate::session::reference::Ref;
use crate::session::{self, cookie};
use crate::store::table::{Pages, Read};
use crate::time::Clock;

use super::args::{ConfigFile, Create, List, Revoke, Show, Which};
use super::failure::{CommandResult, Failure};
use super::output::{self, GOOD};
use super::row::{self, JudgedRow};
use super::site::{self, Reach, Site};

/// Rows of one page of a scan: small enough to show the first ones soon.
const PAGE: Pages = Pages { rows: 500, segment: None };

/// More than a session can hold, and than a cookie header may.
const MAX_INPUT: u64 = 1024 * 1024;

pub(super) fn create(args: Create, file: &ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    let mut claims = match &args.claims_json {
        Some(source) => read_claims(source)?,
        None => Claims::new(),
    };
    claims.extend(args.claims);
    let now = Clock.now().wall;
    super::block_on(async {
        let site = Site::open(&config, args.realm.realm.as_deref(), Reach::Create).await?;
        let policy = Policy::new(&site.config);
        let made = session::create(site.format.as_ref(), &site.table, &policy, claims, now).await?;
        let name = &site.config.cookie.name;
        let value = String::from_utf8_lossy(made.cookie.expose()).into_owned();
        let mut stdout = output::stdout();
        if args.json {
            let line = json!({
                "realm": site.config.name,
                "ref": made.reference.to_string(),
                "cookie": { "name": name, "value": value },
                "expires": output::seconds(made.record.expires),
            });
            writeln!(stdout, "{line}")?;
        } else {
            writeln!(stdout, "{name}={value}")?;
        }
        let expires = output::relative(made.record.expires, now);
        output::say(format_args!("{GOOD}session {}{GOOD:#} created, expires {expires}", made.reference))?;
        Ok(())
    })
}

pub(super) fn show(args: &Show, file: &ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    super::block_on(async {
        let site = Site::open(&config, args.realm.realm.as_deref(), Reach::Existing).await?;
        let (key, item) = find(&site, &args.which).await?;
        let row = JudgedRow::judge(&site, &key, &item, Clock.now().wall);
        let mut stdout = output::stdout();
        if args.json {
            writeln!(stdout, "{}", row.to_json(row::ClaimsDisplay::Shown))?;
        } else {
            write!(stdout, "{}", row.to_text())?;
        }
        Ok(())
    })
}

pub(super) fn list(args: &List, file: &ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    let claims = if args.claims { row::ClaimsDisplay::Shown } else { row::ClaimsDisplay::Left };
    super::block_on(async {
        let site = Site::open(&config, args.realm.realm.as_deref(), Reach::Existing).await?;
        let (mut read, mut matching, mut live) = (0_usize, 0_usize, 0_usize);
        let mut scan = site.table.scan(PAGE);
        while let Some(page) = scan.next().await? {
            let now = Clock.now().wall;
            let mut stdout = output::stdout();
            for item in &page {
                let Some(key) = key_of(&site, item) else { continue };
                let row = JudgedRow::judge(&site, &key, item, now);
                read += 1;
                if !is_asked_for(args, &row) {
                    continue;
                }
                matching += 1;
                live += usize::from(row.is_live());
                if args.json {
                    writeln!(stdout, "{}", row.to_json(claims))?;
                } else {
                    writeln!(stdout, "{}", row.to_line(claims))?;
                }
            }
        }
        let noun = if read == 1 { "session" } else { "sessions" };
        let read = format!("{read} {noun} in table `{}`", site.table.name());
        if args.sought.is_empty() && !args.live && !args.expired {
            output::say(format_args!("{read}, {live} of them live"))?;
        } else {
            output::say(format_args!("{read}, {matching} match, {live} of these live"))?;
        }
        Ok(())
    })
}

fn is_asked_for(args: &List, row: &JudgedRow) -> bool {
    let has_claims =
        || row.claims().is_some_and(|claims| args.sought.iter().all(|sought| sought.holds(claims)));
    (args.sought.is_empty() || has_claims())
        && (!args.live || row.is_live())
        && (!args.expired || row.claims().is_some() && !row.is_live())
}

pub(super) fn revoke(args: &Revoke, file: &ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    super::block_on(async {
        let site = Site::open(&config, args.realm.realm.as_deref(), Reach::Existing).await?;
        let (key, row) = find(&site, &args.which).await?;
        let reference = Ref::of(&key);
        let predecessor = site.format.decode(&row).ok().and_then(|record| record.predecessor);
        match destroy(&*site.format, &site.table, &key, predecessor.as_deref()).await? {
            Destroyed::Deleted(deleted) => {
                let deleted = Ref::of(&deleted);
                if deleted == reference {
                    output::say(format_args!("{GOOD}session {reference}{GOOD:#} revoked"))?;
                } else {
                    output::say(format_args!(
                        "{GOOD}session {reference}{GOOD:#} revoked; it had changed its id, and was {deleted}"
                    ))?;
                }
                let ttl = site.config.cache.ttl;
                if !ttl.is_zero() {
                    let ttl = humantime::format_duration(ttl);
                    output::say(format_args!(
                        "A gateway may go on using what it read of it for up to {ttl}"
                    ))?;
                }
                Ok(())
            }
            Destroyed::Absent => Err(Failure::refused(format!("session {reference} is gone already"))),
            Destroyed::Lost => Err(Failure::refused(format!(
                "session {reference} has changed its id, and its row does not say to which: it lives on"
            ))),
        }
    })
}

/// The row that is meant, as the table has it now.
async fn find(site: &Site, which: &Which) -> Result<(Key, Item), Failure> {
    match (&which.reference, &which.cookie) {
        (Some(reference), _) => {
            let wanted = Ref::parse(reference).ok_or_else(|| {
                Failure::usage("a ref is 16 hex digits")
                    .hint("`sessiongate session list` shows them; a cookie is given with `--cookie`")
            })?;
            by_ref(site, wanted).await
        }
        (None, Some(cookie)) => by_cookie(site, cookie).await,
        (None, None) => Err(Failure::usage("neither a ref nor a cookie was given")),
    }
}

/// Refs are not stored, so the table is read to its end, also to be sure that no second session goes by that name.
async fn by_ref(site: &Site, wanted: Ref) -> Result<(Key, Item), Failure> {
    let mut found: Option<(Key, Item)> = None;
    let mut scan = site.table.scan(PAGE);
    while let Some(page) = scan.next().await? {
        for item in page {
            let Some(key) = key_of(site, &item).filter(|key| Ref::of(key) == wanted) else { continue };
            if found.as_ref().is_some_and(|(other, _)| *other != key) {
                return Err(Failure::refused(format!("two sessions go by the ref {wanted}"))
                    .hint("name the one you mean by its cookie, with `--cookie`"));
            }
            found = Some((key, item));
        }
    }
    found.ok_or_else(|| {
        Failure::refused(format!("there is no session {wanted} in table `{}`", site.table.name()))
    })
}

async fn by_cookie(site: &Site, given: &str) -> Result<(Key, Item), Failure> {
    let given = cookie_text(given)?;
    let values = cookie_values(&given, &site.config.cookie.name);
    let [value] = values.as_slice() else {
        let count = values.len();
        return Err(Failure::refused(format!(
            "the Cookie header holds {count} cookies `{}`, not one",
            site.config.cookie.name
        )));
    };
    let refused = |fault| Failure::refused(describe_fault(fault, site.format.as_ref()));
    let reference = site.format.parse_cookie(value).map_err(refused)?;
    let key = site.format.key(&reference.id);
    match site.table.get(&key, Read::Strong).await? {
        Some(item) => Ok((key, item)),
        None => Err(Failure::refused(format!(
            "session {} is not in table `{}`",
            Ref::of(&key),
            site.table.name()
        ))),
    }
}

/// Says what is wrong with a cookie, and what one of `format` looks like.
pub(super) fn describe_fault(fault: CookieFault, format: &dyn Format) -> String {
    match fault {
        CookieFault::Shape => format!("{fault}: {}", format.cookie_shape()),
        CookieFault::Version | CookieFault::Signature => fault.to_string(),
    }
}

/// What was given as a cookie; `-` stands for stdin, which no other user of this machine can read.
pub(super) fn cookie_text(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let text = read_limited(io::stdin(), "stdin")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The values of the cookie `name` in what was given: a whole `Cookie` header, or one bare value.
pub(super) fn cookie_values<'t>(given: &'t str, name: &str) -> Vec<&'t [u8]> {
    if is_bare(given, name) {
        return vec![cookie::unquoted(given.as_bytes())];
    }
    cookie::values(given.as_bytes(), name).collect()
}

/// Returns whether what was given is a value of the cookie `name`, and no `Cookie` header.
pub(super) fn is_bare(given: &str, name: &str) -> bool {
    // A bare value is no pair of any name; what names other cookies only holds none of ours.
    !given.contains(';') && cookie::values(given.as_bytes(), name).next().is_none()
}

fn key_of(site: &Site, item: &Item) -> Option<Key> {
    item.get(site.table.key_attribute()).and_then(Key::from_attribute)
}

fn read_claims(source: &Path) -> Result<Claims, Failure> {
    let text = if source == Path::new("-") {
        read_limited(io::stdin(), "stdin")?
    } else {
        let shown = source.display().to_string();
        let file = std::fs::File::open(source)
            .map_err(|error| Failure::usage(format!("cannot open `{shown}`: {error}")))?;
        read_limited(file, &shown)?
    };
    // The parser's own words quote what they fall over, and claims are not for logs.
    match serde_json::from_str(&text) {
        Ok(Value::Object(claims)) => Ok(claims),
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
        Ok(_) if text.len() as u64 > MAX_INPUT => {
            Err(Failure::usage(format!("{name} holds more than 1 MiB")))
        }
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_a_value_or_a_header() {
        let values = |given| cookie_values(given, "sid");
        assert_eq!(values("abc/1"), [b"abc/1"]);
        assert_eq!(values("sid=abc/1"), [b"abc/1"]);
        assert_eq!(values("a=b; sid=abc/1; sid=x"), [b"abc/1" as &[u8], b"x"]);
        assert_eq!(values("abc="), [b"abc="]);
        assert_eq!(values("\"abc/1\""), [b"abc/1"]);
        assert!(values("a=b; c=d").is_empty());
    }

    #[test]
    fn input_has_a_limit() {
        let long = vec![b'x'; 1024 * 1024 + 1];
        assert!(read_limited(long.as_slice(), "stdin").is_err());
        assert!(read_limited(&long[1..], "stdin").is_ok());
    }
}
