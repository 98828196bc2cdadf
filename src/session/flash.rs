//! One-shot messages, in the lists that Pyramid's sessions keep them in: `session.flash(message)` appends to `_f_`, and
//! `session.pop_flash()` takes all. So apps of both kinds share them.

use serde_json::Value;

use crate::claims::Claims;

/// Pyramid's list of the default queue.
const QUEUE: &str = "_f_";
/// Messages that are never taken are not kept for ever: of more than this, the oldest go.
const MAX_MESSAGES: usize = 100;

/// Appends messages.
pub(super) fn append(claims: &mut Claims, messages: &[String]) {
    if messages.is_empty() {
        return;
    }
    let queue = claims.entry(QUEUE).or_insert_with(|| Value::Array(Vec::new()));
    if !queue.is_array() {
        *queue = Value::Array(Vec::new());
    }
    if let Value::Array(queue) = queue {
        queue.extend(messages.iter().cloned().map(Value::String));
        let excess = queue.len().saturating_sub(MAX_MESSAGES);
        queue.drain(..excess);
    }
}

/// Takes messages out, the oldest first, as many as fit into a header of `budget` bytes; the others wait for the next
/// time. One that alone is too large is given up. What an app has put there that is no text comes as JSON.
pub(super) fn pop(claims: &mut Claims, budget: usize) -> Vec<String> {
    let Some(Value::Array(queue)) = claims.get_mut(QUEUE) else { return Vec::new() };
    let mut messages = Vec::new();
    let mut left = budget;
    let mut taken = 0;
    for message in queue.iter() {
        let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        let size = encoded_len(&text) + 1;
        if size <= left {
            left -= size;
            messages.push(text);
        } else if size <= budget {
            break;
        }
        taken += 1;
    }
    queue.drain(..taken);
    if queue.is_empty() {
        claims.shift_remove(QUEUE);
    }
    messages
}

/// Puts a queue without messages there.
pub(super) fn put_empty(claims: &mut Claims) {
    claims.insert(QUEUE.to_owned(), Value::Array(Vec::new()));
}

/// The bytes that a message takes in a header, at most.
fn encoded_len(text: &str) -> usize {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum()
}

/// Whether there are any.
pub(crate) fn waits(claims: &Claims) -> bool {
    claims.get(QUEUE).and_then(Value::as_array).is_some_and(|queue| !queue.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_come_out_once_in_the_order_they_went_in() {
        let mut claims =
            json!({"user": "alice", "_f_": ["from pyramid", {"x": 1}]}).as_object().unwrap().clone();
        append(&mut claims, &["one".into(), "two".into()]);
        assert!(waits(&claims));
        assert_eq!(pop(&mut claims, 1000), ["from pyramid", "{\"x\":1}", "one", "two"]);
        assert_eq!(Value::Object(claims.clone()), json!({"user": "alice"}));
        assert!(!waits(&claims) && pop(&mut claims, 1000).is_empty());
    }

    #[test]
    fn messages_that_nobody_takes_do_not_pile_up() {
        let mut claims = json!({"_f_": "no list"}).as_object().unwrap().clone();
        for number in 0..500 {
            append(&mut claims, &[number.to_string()]);
        }
        assert_eq!(pop(&mut claims, 10_000).first().map(String::as_str), Some("400"));
    }

    #[test]
    fn what_does_not_fit_waits_and_what_never_will_is_given_up() {
        let mut claims =
            json!({"_f_": ["x".repeat(60), "y".repeat(200), "z".repeat(60)]}).as_object().unwrap().clone();
        assert_eq!(pop(&mut claims, 100), ["x".repeat(60)]);
        assert_eq!(pop(&mut claims, 100), ["z".repeat(60)]);
        assert!(!waits(&claims));
    }
}
