//! Messages of the contract as JSON for people and `jq`: field names as in the `.proto`, bytes in hex, times as RFC 3339, durations in
//! seconds with an `s`, enum values by name, 64-bit numbers as numbers. Every scalar field is present, set or not, so that scripts find
//! it; a message field that is not set is left out.

use crate::{hex, v1::FILE_DESCRIPTOR_SET};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};
use serde_json::{Map, Value as Json};
use std::sync::LazyLock;

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok());

/// `message` as JSON; null if its type is not part of the contract.
pub fn value<M: Message + Name>(message: &M) -> Json {
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&M::full_name()));
    let dynamic = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok());
    dynamic.map_or(Json::Null, |dynamic| message_value(&dynamic))
}

fn message_value(message: &DynamicMessage) -> Json {
    let descriptor = message.descriptor();
    let number = |name: &str| {
        message.get_field_by_name(name).and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from))).unwrap_or(0)
    };
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => return timestamp(number("seconds"), number("nanos")),
        "google.protobuf.Duration" => return duration(number("seconds"), number("nanos")),
        _ => {}
    }
    let mut object = Map::new();
    for field in descriptor.fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        object.insert(field.name().to_owned(), field_value(&field, &message.get_field(&field)));
    }
    Json::Object(object)
}

fn field_value(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::List(items) => items.iter().map(|item| scalar(field, item)).collect(),
        Value::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().map(|(key, value)| (key_text(key), scalar(field, value))).collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(sorted.into_iter().collect())
        }
        single => scalar(field, single),
    }
}

fn scalar(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::Bool(b) => Json::from(*b),
        Value::I32(n) => Json::from(*n),
        Value::I64(n) => Json::from(*n),
        Value::U32(n) => Json::from(*n),
        Value::U64(n) => Json::from(*n),
        Value::F32(n) => Json::from(*n),
        Value::F64(n) => Json::from(*n),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(hex::encode(bytes)),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(kind) => kind.get_value(*number).map_or(Json::from(*number), |value| Json::from(value.name())),
            _ => Json::from(*number),
        },
        Value::Message(message) => message_value(message),
        Value::List(_) | Value::Map(_) => Json::Null,
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
    }
}

fn timestamp(seconds: i64, nanos: i64) -> Json {
    let time = i32::try_from(nanos).ok().and_then(|nanos| jiff::Timestamp::new(seconds, nanos).ok());
    time.map_or(Json::Null, |time| Json::from(time.to_string()))
}

fn duration(seconds: i64, nanos: i64) -> Json {
    let text = format!("{seconds}.{:09}", nanos.unsigned_abs());
    Json::from(format!("{}s", text.trim_end_matches('0').trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{PeerRecord, PeerState};

    #[test]
    fn messages_print_with_the_names_of_the_contract() {
        let peer = PeerRecord {
            id: vec![0xab; 2].into(),
            name: "a".into(),
            state: PeerState::Active.into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            last_active_at: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
            lease_remaining: Some(prost_types::Duration { seconds: 29, nanos: 250_000_000 }),
            ..Default::default()
        };
        let json = value(&peer);
        assert_eq!(json["id"], "abab");
        assert_eq!(json["state"], "PEER_STATE_ACTIVE");
        assert_eq!(json["labels"]["k"], "v");
        assert_eq!(json["last_active_at"], "1970-01-01T00:00:01.5Z");
        assert_eq!(json["lease_remaining"], "29.25s");
        assert_eq!(json["index_version"], 0);
        assert!(json.get("load").is_none());
    }
}
