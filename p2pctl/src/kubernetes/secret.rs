//! A Secret: named bytes, and who made it.

use crate::failure::{Failure, Outcome};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Formatter},
};

/// The label by which this program knows the Secrets that it made (kubernetes.io/docs/concepts/overview/working-with-objects/common-labels).
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "p2pctl");

/// A Secret as it is, or as it is to be.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret {
    name: String,
    /// All of it but its data; what this program does not know stays.
    object: Value,
    /// By key.
    pub(crate) data: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// A new one, of this type.
    pub(crate) fn new(name: &str, kind: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut labels = labels.clone();
        labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
        let metadata = json!({ "name": name, "labels": labels });
        let object = json!({ "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata });
        Self { name: name.to_owned(), object, data: BTreeMap::new() }
    }

    /// What the API answered.
    pub(super) fn read(name: &str, answer: &Value) -> Outcome<Self> {
        let wrong = |what: &str| Failure::refused(format!("the API server's answer for Secret {name} {what}"));
        let mut object = answer.clone();
        let fields = object.as_object_mut().ok_or_else(|| wrong("is no object"))?;
        let data = fields.remove("data").unwrap_or(Value::Null);
        if fields.get("metadata").and_then(|metadata| metadata["resourceVersion"].as_str()).is_none() {
            return Err(wrong("has no resourceVersion"));
        }
        let mut decoded = BTreeMap::new();
        for (key, value) in data.as_object().unwrap_or(&Map::new()) {
            let bytes = value.as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
            decoded.insert(key.clone(), bytes.ok_or_else(|| wrong("has data that is not base64"))?);
        }
        Ok(Self { name: name.to_owned(), object, data: decoded })
    }

    pub(super) fn to_json(&self) -> Value {
        let data: BTreeMap<_, _> = self.data.iter().map(|(key, bytes)| (key, BASE64.encode(bytes))).collect();
        let mut object = self.object.clone();
        object["data"] = json!(data);
        object
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It is not in the cluster yet.
    pub(crate) fn is_new(&self) -> bool {
        self.object["metadata"]["resourceVersion"].is_null()
    }

    /// Whether this program made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.object["metadata"]["labels"][MANAGED_BY.0] == MANAGED_BY.1
    }

    /// The text of a key; `None`: it has none.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.data.get(key)?).ok()
    }
}

/// Without its data: there are keys in it.
impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, {:?})", self.name, self.data.keys())
    }
}
