//! HTTP/1.1 requests of clients, as the gateway and the parsers of other servers read them: llhttp, which Node.js uses, and
//! h11, which Python servers use.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sessiongate::fuzzing::ClientRequest;

use crate::support::packages::Runtime;
use crate::support::request_streams::{self, Ending, Reading, Rejections};
use crate::support::script::Script;

#[tokio::test(flavor = "multi_thread")]
async fn llhttp_reads_the_same_requests() {
    // Its codes depend on the version of Node.js, which is not pinned. It rejects unknown methods, targets that the gateway
    // rejects later, a tab after Content-Length or Transfer-Encoding, and some chunk extensions.
    compare_with(Runtime::Node, "llhttp", &[], "parse_with_node.js", &["HPE_"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h11_reads_the_same_requests() {
    let known = [
        // The gateway's proxy rejects such a request.
        "Missing mandatory Host: header",
        // White space before a chunk extension (RFC 9112, 7.1.1).
        "illegal chunk header",
        // Targets that are not ASCII, which the gateway passes on as they are.
        "illegal request line",
        // Empty lines before a request (RFC 9112, 2.2).
        "no request line received",
    ];
    compare_with(Runtime::Python, "h11", &["h11==0.16.0"], "parse_with_h11.py", &known).await;
}

/// Compares the gateway's reading of all streams with that of a script. `known` has the beginnings of
/// the script's reasons to reject requests that the gateway accepts.
async fn compare_with(runtime: Runtime, name: &str, packages: &[&str], script: &str, known: &[&str]) {
    let Some(interpreter) = runtime.command(name, packages) else { return };
    let streams = request_streams::all();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("request-streams-{name}"));
    let mut lines = String::new();
    for stream in &streams {
        for byte in stream {
            let _ = write!(lines, "{byte:02x}");
        }
        lines.push('\n');
    }
    fs::write(&path, lines).unwrap();
    let mut script = Script::start(interpreter, script, &[path.to_str().unwrap()]);
    let (mut disagreements, mut rejections) = (Vec::new(), Rejections::new());
    for stream in &streams {
        let reading = reading(&script.next_json().await);
        disagreements.extend(request_streams::compare(stream, &reading, &mut rejections).err());
    }
    request_streams::assert_agreement(&disagreements, &rejections, known);
}

fn reading(line: &Value) -> Reading {
    let ending = match line["ending"].as_str().unwrap() {
        "waits" => Ending::Waits,
        "closed" => Ending::Closed,
        reason => Ending::Rejected(reason.trim_start_matches("rejected ").to_owned()),
    };
    Reading { requests: line["requests"].as_array().unwrap().iter().map(request).collect(), ending }
}

fn request(request: &Value) -> ClientRequest {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let field = |field: &Value| {
        let value = text(&field[1]).chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<_>>();
        (text(&field[0]).to_ascii_lowercase(), value.trim_ascii().to_vec())
    };
    let hex = text(&request[3]);
    let target = text(&request[1]);
    ClientRequest {
        method: text(&request[0]),
        // `http://a` and `http://a/` are equal.
        target: target.parse().map_or(target, |target: http::Uri| target.to_string()),
        fields: request[2].as_array().unwrap().iter().map(field).collect(),
        body: (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect(),
    }
}
