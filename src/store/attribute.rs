//! Conversion of attribute values to the SDK's types and back. Numbers are converted as text, so that none is rounded.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::item::{Attribute, Item, Number};

use super::StoreError;

/// A row in the SDK's types.
pub(super) type SdkItem = HashMap<String, AttributeValue>;

pub(super) fn to_sdk(attribute: Attribute) -> AttributeValue {
    match attribute {
        Attribute::String(text) => AttributeValue::S(text),
        Attribute::Number(number) => AttributeValue::N(number.as_str().to_owned()),
        Attribute::Binary(bytes) => AttributeValue::B(Blob::new(bytes)),
        Attribute::Bool(value) => AttributeValue::Bool(value),
        Attribute::Null => AttributeValue::Null(true),
        Attribute::List(elements) => AttributeValue::L(elements.into_iter().map(to_sdk).collect()),
        Attribute::Map(item) => AttributeValue::M(item_to_sdk(item)),
        Attribute::StringSet(texts) => AttributeValue::Ss(texts),
        Attribute::NumberSet(numbers) => {
            AttributeValue::Ns(numbers.iter().map(|number| number.as_str().to_owned()).collect())
        }
        Attribute::BinarySet(values) => AttributeValue::Bs(values.into_iter().map(Blob::new).collect()),
    }
}

pub(super) fn item_to_sdk(item: Item) -> SdkItem {
    item.into_iter().map(|(name, attribute)| (name, to_sdk(attribute))).collect()
}

pub(super) fn item_from_sdk(item: SdkItem) -> Result<Item, StoreError> {
    item.into_iter().map(|(name, value)| Ok((name, from_sdk(value)?))).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enum is non-exhaustive")]
fn from_sdk(value: AttributeValue) -> Result<Attribute, StoreError> {
    Ok(match value {
        AttributeValue::S(text) => Attribute::String(text),
        AttributeValue::N(text) => Attribute::Number(Number::from_text(text)),
        AttributeValue::B(blob) => Attribute::Binary(blob.into_inner()),
        AttributeValue::Bool(value) => Attribute::Bool(value),
        AttributeValue::Null(_) => Attribute::Null,
        AttributeValue::L(values) => {
            Attribute::List(values.into_iter().map(from_sdk).collect::<Result<_, _>>()?)
        }
        AttributeValue::M(item) => Attribute::Map(item_from_sdk(item)?),
        AttributeValue::Ss(texts) => Attribute::StringSet(texts),
        AttributeValue::Ns(texts) => Attribute::NumberSet(texts.into_iter().map(Number::from_text).collect()),
        AttributeValue::Bs(blobs) => Attribute::BinarySet(blobs.into_iter().map(Blob::into_inner).collect()),
        // This version of the SDK does not know the type. The row cannot be decoded.
        _ => {
            return Err(StoreError::Unavailable("the row holds an attribute of an unknown type".to_owned()));
        }
    })
}
