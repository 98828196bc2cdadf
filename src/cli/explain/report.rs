//! Formats an explanation as text or JSON.

use std::io;

use http::HeaderName;
use http::header::HeaderValue;
use serde_json::{Map, Value, json};

use crate::claims::UserClaim;
use crate::cli::args::Explain;
use crate::cli::output::{self, BAD, BOLD, GOOD, escape};
use crate::cli::row::ClaimsDisplay;
use crate::config::{Config, Destination};
use crate::headers;
use crate::proxy::{DryRun, DryRunOutcome, OtherCase, Refusal, ResolvedCookies, Route};
use crate::session::{Anonymous, UserState};

use super::{Cookie, Explanation};

impl Explanation {
    pub(super) fn print(&self, args: &Explain, config: &Config, out: &mut impl io::Write) -> io::Result<()> {
        let DryRun { scrubbed, route, resolved, other_case, outcome } = &self.dry_run;
        let realm = route.as_ref().and_then(|route| route.realm.as_ref());
        let mut line = |name: &str, text: &str| writeln!(out, "{BOLD}{name:<8}{BOLD:#} {text}");
        line("request", &escape(&format!("{} http://{}{}", args.method, args.host, args.path)))?;
        for name in scrubbed {
            line("scrubbed", &format!("{name}: clients may not send this header"))?;
        }
        match route {
            Some(route) => line("route", &describe_route(route, config))?,
            None => line("route", "none")?,
        }
        if let Some(other) = other_case {
            line("case", &describe_case(other))?;
        }
        for cookie in &self.cookies {
            match cookie {
                Cookie::Invalid(fault) => line("cookie", &format!("rejected without a read: {fault}"))?,
                Cookie::Valid(reference, version, row) => {
                    line("cookie", &format!("names session {reference}, version {version}"))?;
                    match row.as_ref() {
                        Ok(Some(row)) => line("row", &row.to_line(ClaimsDisplay::Show))?,
                        Ok(None) => line("row", "does not exist")?,
                        Err(error) => line("row", &format!("{BAD}cannot be read{BAD:#}: {error}"))?,
                    }
                }
            }
        }
        if let Some(resolved) = resolved {
            line("session", &self.session(resolved))?;
        }
        if let (Some(ResolvedCookies::Active(_, _, user)), Some(realm)) = (resolved, realm) {
            line("user", &describe_user(*user, realm.user_claim()))?;
        }
        match outcome {
            Ok(outcome) => {
                line("access", &format!("{GOOD}allowed{GOOD:#}"))?;
                match outcome {
                    DryRunOutcome::Forwarded { target, .. } if *target == args.path => {}
                    DryRunOutcome::Forwarded { target, .. } => {
                        line("path", &format!("forwarded as {}", escape(target)))?;
                    }
                    DryRunOutcome::Local(status, None) => line("response", status.as_str())?,
                    DryRunOutcome::Local(status, Some(location)) => {
                        line("response", &format!("{} to {}", status.as_str(), escape(&text(location))))?;
                    }
                }
            }
            Err(refusal) => {
                line("access", &format!("{BAD}{}{BAD:#} {}", refusal.status().as_u16(), refusal.label()))?;
            }
        }
        if let (Err(Refusal::Forbidden), Some(route)) = (outcome, route) {
            for requirement in &route.require {
                line("", &format!("requires {requirement}"))?;
            }
        }
        if let Some(Refusal::Login(location)) = &self.browser_refusal {
            line("", &format!("for a browser: 302 to {}", escape(&text(location))))?;
        }
        if let Err(Refusal::Login(location) | Refusal::Merged(location)) = outcome {
            line("", &format!("to {}", escape(&text(location))))?;
        }
        for (name, value) in outcome.iter().flat_map(|outcome| injected(outcome, route.as_deref())) {
            line("header", &format!("{name}: {}", escape(&value)))?;
        }
        Ok(())
    }

    fn session(&self, resolved: &ResolvedCookies) -> String {
        match resolved {
            ResolvedCookies::Active(reference, life, _) => {
                let expires = output::relative(life.expires, self.now.wall);
                let due = match &life.due {
                    Some(due) => format!(
                        "a reissue is due, after which it would expire {}",
                        output::relative(due.expires, self.now.wall)
                    ),
                    None => "no reissue is due".to_owned(),
                };
                format!("{GOOD}{reference}{GOOD:#}, expires {expires}; {due}")
            }
            ResolvedCookies::Anonymous(anonymous) => format!("none: {}", reason(anonymous)),
            ResolvedCookies::Unavailable => format!("{BAD}unavailable{BAD:#}: the session could not be read"),
        }
    }

    pub(super) fn to_json(&self, args: &Explain) -> Value {
        let DryRun { scrubbed, route, resolved, other_case, outcome } = &self.dry_run;
        let cookies: Vec<_> = self.cookies.iter().map(Cookie::to_json).collect();
        let session = resolved.as_ref().map(|resolved| match resolved {
            ResolvedCookies::Active(reference, life, user) => json!({
                "status": if *user == UserState::Guest { "guest" } else { "active" },
                "ref": reference.to_string(),
                "expires": output::unix_seconds(life.expires),
                "reissue_to": life.due.map(|due| due.expires.as_secs()),
            }),
            ResolvedCookies::Anonymous(anonymous) => {
                json!({ "status": "anonymous", "reason": anonymous.label() })
            }
            ResolvedCookies::Unavailable => json!({ "status": "unavailable" }),
        });
        let access = match outcome {
            Ok(DryRunOutcome::Forwarded { .. }) => json!({ "admitted": true }),
            Ok(DryRunOutcome::Local(status, location)) => json!({
                "admitted": true,
                "status": status.as_u16(),
                "location": location.as_ref().map(text),
            }),
            Err(refusal) => {
                let browser_refusal = self.browser_refusal.as_ref().unwrap_or(refusal);
                let login =
                    if let Refusal::Login(location) = browser_refusal { Some(text(location)) } else { None };
                let location =
                    if let Refusal::Merged(location) = refusal { Some(text(location)) } else { None };
                json!({
                    "admitted": false,
                    "status": refusal.status().as_u16(),
                    "reason": refusal.label(),
                    "login": login,
                    "location": location,
                })
            }
        };
        let forwarded_as = match outcome {
            Ok(DryRunOutcome::Forwarded { target, .. }) => Some(target),
            Ok(DryRunOutcome::Local(..)) | Err(_) => None,
        };
        let headers = outcome.iter().flat_map(|outcome| injected(outcome, route.as_deref()));
        json!({
            "request": { "method": args.method.as_str(), "host": args.host, "path": args.path },
            "scrubbed": scrubbed.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            "route": route.as_ref().map(|route| route.name.as_str()),
            "cookies": cookies,
            "session": session,
            "access": access,
            "forwarded_as": forwarded_as,
            "case": other_case.as_ref().map(describe_case),
            "headers": headers.map(|(name, value)| (name, Value::String(value))).collect::<Map<_, _>>(),
        })
    }
}

impl Cookie {
    fn to_json(&self) -> Value {
        match self {
            Self::Invalid(fault) => json!({ "refused": fault }),
            Self::Valid(reference, version, row) => {
                let (row, error) = match row.as_ref() {
                    Ok(row) => (row.as_ref().map(|row| row.to_json(ClaimsDisplay::Show)), None),
                    Err(error) => (None, Some(error)),
                };
                json!({ "ref": reference.to_string(), "version": version, "row": row, "error": error })
            }
        }
    }
}

fn describe_route(route: &Route, config: &Config) -> String {
    let access = route.access.as_str();
    let realm = route.realm.as_ref().map(|realm| format!(", realm `{}`", realm.name())).unwrap_or_default();
    let destination = match &route.destination {
        Destination::Upstream(to) => {
            let upstream = config.upstreams.get(to.upstream).map_or("", |upstream| upstream.name.as_str());
            format!("upstream `{upstream}`")
        }
        Destination::Redirect(_) => "a redirect".to_owned(),
        Destination::Respond(_) => "a fixed response".to_owned(),
    };
    format!("`{}`: {access}{realm}, {destination}", route.name)
}

fn describe_case(OtherCase { path, matching, guard }: &OtherCase) -> String {
    let (path, matching, guard) = (escape(path), &matching.name, &guard.name);
    format!(
        "`{path}` matches `{matching}`, but would match `{guard}` if case were ignored: if the upstream ignores case, set \
         `ignore_case = true` on `{guard}`, or on a route above it"
    )
}

fn describe_user(user: UserState, claim: &UserClaim) -> String {
    match user {
        UserState::LoggedIn => format!("{GOOD}logged in{GOOD:#}: {claim} names the user"),
        UserState::Guest => format!("a guest: {claim} is absent, or names no user"),
        UserState::Unknown => "unknown: the realm has no `user`".to_owned(),
    }
}

/// Returns the headers of the forwarded request that the route sets, the session headers, and `X-Forwarded-Prefix`.
fn injected(outcome: &DryRunOutcome, route: Option<&Route>) -> Vec<(String, String)> {
    let DryRunOutcome::Forwarded { headers, .. } = outcome else { return Vec::new() };
    let is_set_by_route = |route: &Route, name: &HeaderName| {
        let is_set = route.request_headers.set.iter().any(|edit| edit.name == name);
        is_set || route.headers.iter().any(|rule| rule.name == name)
    };
    let is_injected = |name: &HeaderName| {
        headers::is_control(name)
            || *name == headers::FORWARDED_PREFIX
            || route.is_some_and(|route| is_set_by_route(route, name))
    };
    let injected = headers.iter().filter(|(name, _)| is_injected(name));
    injected.map(|(name, value)| (headers::capitalized(name), text(value))).collect()
}

fn reason(anonymous: &Anonymous) -> String {
    match anonymous {
        Anonymous::NoCookie => "no cookie with the realm's cookie name".to_owned(),
        Anonymous::Refused(fault) => fault.to_string(),
        Anonymous::Absent => "the row does not exist".to_owned(),
        Anonymous::NotASession(fault) => format!("the row is not a session: {fault}"),
        Anonymous::Idle => "the session has expired".to_owned(),
        Anonymous::TooOld => {
            "the session's maximum lifetime has passed, or its row does not record when it was created"
                .to_owned()
        }
        Anonymous::Ambiguous => {
            "the cookies name several live sessions, or more sessions than are looked up, so none is used"
                .to_owned()
        }
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
