//! The app's HTML page. Its values come from untrusted clients, so every value is escaped, the template is filled in a
//! single pass (a value that looks like a placeholder stays a value), and the Content-Security-Policy allows only the
//! page's own script and style.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::page_kind::PageKind;
use super::received::{HeaderOrigin, Received};

const TEMPLATE: &str = include_str!("page.html");
const FORMS: &str = include_str!("forms.html");

/// Text above the forms if the app may change sessions.
const ENABLED: &str = "The app sets no cookie and has no store. It responds to each form with one or more headers, and the \
    gateway changes the session.";
/// Text above the forms if the app may not change sessions.
const DISABLED: &str = "Disabled: this route does not let the app change sessions. To enable the forms, set \
    <code>writes = true</code>, and <code>X-Visits = &quot;visits&quot;</code> among the route's headers.";

/// Targets of a page's links and forms, and whether the forms are enabled.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) login_link: Option<String>,
    pub(super) log_in: String,
    pub(super) may_write: bool,
}

#[derive(Debug)]
pub(super) struct Page {
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            hash_source("script"),
            hash_source("style"),
        );
        // Base64 and the text above are valid in a header, so this does not fail. The fallback allows nothing.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { policy }
    }

    /// Returns the page's Content-Security-Policy.
    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    pub(super) fn render(&self, kind: PageKind, received: &Received, links: &Links) -> String {
        let user = received.user();
        let name = user.as_deref().unwrap_or("anonymous");
        fill(TEMPLATE, |placeholder| match placeholder {
            "user" => if user.is_some() { "known" } else { "unknown" }.to_owned(),
            "flash" => received.flash().map(|message| flash(&message)).collect(),
            "forms" => forms(kind, received, links),
            "greeting" => escape(&format!("Hello, {name}")),
            "name" => escape(name),
            "status" => escape(received.status()),
            "poll" => kind.poll_path().to_owned(),
            "nav" => nav(kind),
            "note" => escape(kind.note()),
            "login-link" => links.login_link.as_deref().map(button).unwrap_or_default(),
            "rows" => received.headers().map(row).collect(),
            _ => String::new(),
        })
    }
}

/// Replaces each `{{placeholder}}` of the template.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut page = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("{{") {
        page.push_str(text);
        let Some((placeholder, after)) = after.split_once("}}") else { break };
        page.push_str(&value(placeholder));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn nav(current_page: PageKind) -> String {
    PageKind::LINKED
        .iter()
        .map(|(path, kind)| {
            let current = if *kind == current_page { r#" aria-current="page""# } else { "" };
            format!(r#"<a href="{path}"{current}>{path}</a>"#)
        })
        .collect()
}

fn button(link: &str) -> String {
    format!(r#"<a class="button" href="{}">Log in as alice</a>"#, escape(link))
}

fn flash(message: &str) -> String {
    format!(r#"<p class="flash" role="status">{}</p>"#, escape(message))
}

/// Returns the forms on the home page and the log-in page, and nothing on others.
fn forms(kind: PageKind, received: &Received, links: &Links) -> String {
    if !matches!(kind, PageKind::Home | PageKind::Login) {
        return String::new();
    }
    fill(FORMS, |placeholder| match placeholder {
        "log-in" => escape(&links.log_in),
        "visits" => received.visits().to_string(),
        "disabled" if !links.may_write => " disabled".to_owned(),
        "about" if links.may_write => ENABLED.to_owned(),
        "about" => DISABLED.to_owned(),
        _ => String::new(),
    })
}

fn row((origin, name, value): (HeaderOrigin, &str, &str)) -> String {
    let label = match origin {
        HeaderOrigin::Session => "injected",
        HeaderOrigin::Gateway => "proxy",
        HeaderOrigin::Client => "client",
    };
    format!(
        r#"<tr class="{}"><th scope="row">{}</th><td>{}</td><td>{label}</td></tr>"#,
        origin.as_str(),
        escape(name),
        escape(value)
    )
}

/// Escapes text for an HTML element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

/// Returns the hash source of the Content-Security-Policy that allows the template's only `<script>` or `<style>`.
fn hash_source(element: &str) -> String {
    let content = TEMPLATE
        .split_once(&format!("<{element}>"))
        .and_then(|(_, after)| after.split_once(&format!("</{element}>")))
        .map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content.as_bytes())))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::*;
    use crate::demo::HeaderOrigins;

    fn received(pairs: &[(&'static str, &str)]) -> Received {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        Received::new(
            &headers,
            &HeaderOrigins { session: vec![HeaderName::from_static("x-user")], ..HeaderOrigins::default() },
        )
    }

    fn links(link: &str) -> Links {
        Links { login_link: Some(link.to_owned()), log_in: link.to_owned(), may_write: true }
    }

    #[test]
    fn messages_are_shown_and_escaped() {
        let received = received(&[("x-session-flash", "Welcome%2C Zo%C3%AB,%3Cb%3E")]);
        let page = Page::new().render(PageKind::Home, &received, &Links::default());
        for expected in
            ["<p class=\"flash\" role=\"status\">Welcome, Zoë</p>", "role=\"status\">&lt;b&gt;</p>"]
        {
            assert!(page.contains(expected), "{expected} is missing");
        }
    }

    #[test]
    fn forms_are_disabled_if_the_app_may_not_write() {
        let shown = |kind, may_write| {
            let links = Links { may_write, ..links("/log-in?next=%2Fmembers") };
            Page::new().render(kind, &received(&[("x-visits", "41")]), &links)
        };
        let enabled = shown(PageKind::Home, true);
        assert!(enabled.contains("action=\"/log-in?next=%2Fmembers\"") && enabled.contains(">41<"));
        assert!(enabled.contains("<fieldset>"));
        assert!(shown(PageKind::Login, false).contains("<fieldset disabled>"));
        assert!(!shown(PageKind::Public, true).contains("<form"));
    }

    #[test]
    fn values_are_escaped() {
        let attack = r#"<script>alert("1")</script>'&"#;
        let received = received(&[("x-user", attack), ("x-session-status", attack), ("cookie", attack)]);
        let page = Page::new().render(PageKind::Home, &received, &links(r#"/x?next="><b>"#));
        assert!(!page.contains("<script>alert"), "an unescaped value");
        assert!(!page.contains(r#""><b>"#), "an unescaped link");
        assert_eq!(
            page.matches("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;").count(),
            // Title, greeting, three rows of the table, the status in an attribute and in the strip.
            7,
        );
    }

    #[test]
    fn value_that_looks_like_a_placeholder_stays_a_value() {
        let page =
            Page::new().render(PageKind::Home, &received(&[("cookie", "{{rows}}{{")]), &Links::default());
        assert!(page.contains("<td>{{rows}}{{</td>"));
        assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn every_placeholder_of_the_template_is_filled() {
        let page =
            Page::new().render(PageKind::Login, &received(&[("x-user", "alice")]), &links("/become/x"));
        assert!(!page.contains("{{"));
        for expected in [
            "Hello, alice ·",
            r#"data-poll="/whoami""#,
            r#"<a href="/members">"#,
            r#"href="/become/x""#,
            r#"<tr class="session"><th scope="row">X-User</th><td>alice</td><td>injected</td></tr>"#,
        ] {
            assert!(page.contains(expected), "{expected} is missing");
        }
    }

    #[test]
    fn policy_allows_the_pages_script_and_style() {
        let policy = Page::new().policy();
        let policy = policy.to_str().unwrap();
        let empty = STANDARD.encode(Sha256::digest(b""));
        assert_eq!(policy.matches("sha256-").count(), 2);
        assert!(!policy.contains(&empty), "the script or the style was not found");
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn page_loads_nothing_from_other_hosts() {
        for outside in ["src=", "href=\"http", "href=\"//", "@import", "url("] {
            assert!(!TEMPLATE.contains(outside), "{outside}");
        }
    }
}
