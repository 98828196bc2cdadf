//! Flash messages, in the queue of Pyramid's sessions: `session.flash(message)` appends to `_f_`, and
//! `session.pop_flash()` takes all of them. So Pyramid apps and other apps share them.

use serde_json::Value;

use crate::claims::Claims;

/// The claim of Pyramid's default queue.
const QUEUE: &str = "_f_";
/// Maximum number of messages in the queue. If there are more, the oldest are removed.
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

/// Removes the oldest messages, as many as fit into a header of `budget` bytes, and returns them. A message that exceeds
/// the budget by itself is dropped. A message that is not a string is returned as JSON.
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

/// Sets an empty queue.
pub(super) fn set_empty(claims: &mut Claims) {
    claims.insert(QUEUE.to_owned(), Value::Array(Vec::new()));
}

/// Returns the maximum size of a message in a header, where it is percent-encoded.
fn encoded_len(text: &str) -> usize {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum()
}

/// Returns whether the queue has messages.
pub(crate) fn has_messages(claims: &Claims) -> bool {
    claims.get(QUEUE).and_then(Value::as_array).is_some_and(|queue| !queue.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_popped_once_and_in_order() {
        let mut claims =
            json!({"user": "alice", "_f_": ["from pyramid", {"x": 1}]}).as_object().unwrap().clone();
        append(&mut claims, &["one".into(), "two".into()]);
        assert!(has_messages(&claims));
        assert_eq!(pop(&mut claims, 1000), ["from pyramid", "{\"x\":1}", "one", "two"]);
        assert_eq!(Value::Object(claims.clone()), json!({"user": "alice"}));
        assert!(!has_messages(&claims) && pop(&mut claims, 1000).is_empty());
    }

    #[test]
    fn number_of_messages_is_limited() {
        let mut claims = json!({"_f_": "no list"}).as_object().unwrap().clone();
        for number in 0..500 {
            append(&mut claims, &[number.to_string()]);
        }
        assert_eq!(pop(&mut claims, 10_000).first().map(String::as_str), Some("400"));
    }

    #[test]
    fn message_beyond_the_budget_stays_and_one_that_never_fits_is_dropped() {
        let mut claims =
            json!({"_f_": ["x".repeat(60), "y".repeat(200), "z".repeat(60)]}).as_object().unwrap().clone();
        assert_eq!(pop(&mut claims, 100), ["x".repeat(60)]);
        assert_eq!(pop(&mut claims, 100), ["z".repeat(60)]);
        assert!(!has_messages(&claims));
    }
}
