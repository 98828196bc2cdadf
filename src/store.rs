//! The DynamoDB table behind a realm, as the few verbs on rows that sessions need. The AWS SDK is the only client;
//! the embedded engine stands under it, so every expression, condition and error is the real one.
