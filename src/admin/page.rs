//! The HTML page at `/`: links, and an overview of realms and upstreams.

use crate::proxy::Gateway;

/// Returns the page.
pub(super) fn page(gateway: &Gateway) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let rows = gateway.upstreams.iter().map(|upstream| {
        let (class, word) =
            if upstream.report().is_available() { ("good", "available") } else { ("bad", "no server") };
        format!("<tr><th>{}<td class={class}>{word}", escaped(&upstream.config().name))
    });
    let upstreams: String = rows.collect();
    let rows = gateway.realms.iter().map(|realm| {
        let (used, limit) = realm.usage().sessions;
        format!("<tr><th>{}<td>{used} of {limit} sessions cached", escaped(realm.name()))
    });
    let realms: String = rows.collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>sessiongate</title><style>\
         :root{{color-scheme:light dark}}body{{font:16px/1.6 system-ui,sans-serif;max-width:44rem;margin:8vh auto;padding:0 1rem}}\
         h1{{margin-bottom:0}}h2{{font-size:1rem;margin:2rem 0 .3rem;opacity:.6}}table{{border-collapse:collapse;width:100%}}\
         th,td{{text-align:left;font-weight:normal;padding:.3rem .6rem .3rem 0;border-top:1px solid #8884}}th{{width:40%}}\
         td.good{{color:#1a7f37}}td.bad{{color:#cf222e}}a{{color:inherit}}small{{opacity:.6}}</style>\
         <h1>sessiongate</h1><small>{version}</small>\
         <h2>Endpoints</h2><table>\
         <tr><th><a href=/healthz>/healthz</a><td>whether the process and its workers are alive\
         <tr><th><a href=/readyz>/readyz</a><td>whether requests can be served\
         <tr><th><a href=/metrics>/metrics</a><td>metrics for Prometheus\
         <tr><th><a href=/config>/config</a><td>the current configuration, without secrets</table>\
         <h2>Realms</h2><table>{realms}</table><h2>Upstreams</h2><table>{upstreams}</table></html>\n"
    )
}

/// Escapes a name for HTML. Names contain only letters, digits, `-` and `_`, but this does not rely on that.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
