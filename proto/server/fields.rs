//! The parameters of a request, from its query and, in a POST, its form.

use crate::{
    field::{InvalidField, Quoted},
    status::Reason,
};
use axum::{
    body::{Body, to_bytes},
    http::{header, request::Parts},
};
use percent_encoding::percent_decode_str;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;
use tonic::Status;

/// How long a form may take to arrive. A guess: the longest form over a slow line.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);
/// Content type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// Values by parameter name, each given once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    /// Reads the query and the body. `known`: the parameters that are accepted; `max_bytes`: of the body.
    ///
    /// # Errors
    /// When the form is too long, too slow or of another content type, or a parameter is unknown, repeated or not UTF-8.
    pub async fn read(parts: &Parts, body: Body, known: &'static [&'static str], max_bytes: usize) -> Result<Self, Status> {
        let form = match timeout(FORM_TIMEOUT, to_bytes(body, max_bytes)).await {
            Ok(Ok(form)) => form,
            Ok(Err(error)) => {
                // The server's own limit has a reason.
                let status = Status::from_error(Box::new(error));
                let too_long = || Reason::MessageTooLarge.status(format!("the form is longer than {max_bytes} bytes"));
                return Err(Reason::of(&status).map_or_else(too_long, |_| status));
            }
            Err(_) => return Err(Status::deadline_exceeded(format!("the form did not arrive within {FORM_TIMEOUT:?}"))),
        };
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or(FORM);
        if !form.is_empty() && !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM)) {
            return Err(InvalidField::new("content-type", format!("{} is not supported; send {FORM}", Quoted(kind))).into());
        }
        let form = std::str::from_utf8(&form).map_err(|_| InvalidField::new("form", "is not UTF-8; percent-encode it"))?;
        Ok(Self::parse(&[parts.uri.query().unwrap_or(""), form], known)?)
    }

    /// Decodes `application/x-www-form-urlencoded` (URL Standard, section 5.1): `+` is a space, and a `%` without two hexadecimal digits
    /// stays as it is. Unlike the standard's parser, and so the crate `form_urlencoded`, it refuses what is not UTF-8 instead of
    /// replacing it.
    fn parse(texts: &[&str], known: &'static [&'static str]) -> Result<Self, InvalidField> {
        let mut fields = BTreeMap::new();
        for pair in texts.iter().flat_map(|text| text.split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded =
                |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().map(std::borrow::Cow::into_owned);
            let unknown = |name: &str| {
                InvalidField::new(
                    "query",
                    format!("{} is not a parameter of this path; it takes {}", Quoted(name), known.join(", ")),
                )
            };
            let name = decoded(name).map_err(|_| unknown(name))?;
            let Some(name) = known.iter().find(|known| **known == name) else { return Err(unknown(&name)) };
            let value = decoded(value).map_err(|_| InvalidField::new(name, "is not UTF-8 after percent-decoding"))?;
            if fields.insert(*name, value).is_some() {
                return Err(InvalidField::new(name, "is given twice; give it once"));
            }
        }
        Ok(Self(fields))
    }

    /// The value of a parameter, if it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that must be given; `example` shows how.
    ///
    /// # Errors
    /// When it is missing.
    pub fn required(&self, name: &'static str, example: &str) -> Result<&str, InvalidField> {
        self.get(name).ok_or_else(|| InvalidField::new(name, format!("is missing; write {example}")))
    }
}

/// For any query and form: reading them does not panic, and the values that are read say the same when they are encoded again. For tests
/// and fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(clippy::expect_used, reason = "what it finds is a fault")]
pub fn check_any_form(query: &str, form: &str) {
    const KNOWN: &[&str] = &["name", "message", "kind"];
    let Ok(fields) = Fields::parse(&[query, form], KNOWN) else { return };
    let encode = |(name, value): (&&str, &String)| {
        let value: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("{name}={value}")
    };
    let again = fields.0.iter().map(encode).collect::<Vec<_>>().join("&");
    assert_eq!(Fields::parse(&[&again], KNOWN).expect("what was encoded can be read"), fields);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(query in any::<String>(), form in "((name|message|kind|%[0-9a-g]{0,2}|[+&=é]){0,3}[=&]){0,4}") {
            check_any_form(&query, &form);
            check_any_form("", &form);
        }
    }

    const KNOWN: &[&str] = &["name", "message"];

    fn message(query: &str) -> Result<Option<String>, String> {
        let fields = Fields::parse(&[query, ""], KNOWN).map_err(|error| error.to_string())?;
        Ok(fields.get("message").map(str::to_owned))
    }

    #[test]
    fn values_are_form_decoded() {
        for (query, expected) in [
            ("message=hello", "hello"),
            ("message=hello+there%21", "hello there!"),
            ("message=1%2B1", "1+1"),
            ("message=gr%C3%BC%C3%9Fe", "grüße"),
            ("message=grüße", "grüße"),
            ("message=a=b", "a=b"),
            ("message=100%&&name=foo&", "100%"),
            ("message=%zz%4", "%zz%4"),
            ("%6dessage=x", "x"),
            ("message=", ""),
            ("message", ""),
        ] {
            assert_eq!(message(query).unwrap().as_deref(), Some(expected), "{query}");
        }
        assert_eq!(message("").unwrap(), None);
    }

    #[test]
    fn repeated_unknown_and_non_utf8_parameters_are_refused_by_name() {
        for (query, expected) in [
            ("message=a&message=b", "message: is given twice; give it once"),
            ("message=%ff", "message: is not UTF-8 after percent-decoding"),
            ("mesage=a", "query: \"mesage\" is not a parameter of this path; it takes name, message"),
            ("Message=a", "query: \"Message\" is not a parameter of this path; it takes name, message"),
            ("%ff=a", "query: \"%ff\" is not a parameter of this path; it takes name, message"),
            ("%3Cscript%3E=a", "query: \"<script>\" is not a parameter of this path; it takes name, message"),
        ] {
            assert_eq!(message(query).unwrap_err(), expected, "{query}");
        }
        let both = Fields::parse(&["message=a", "message=b"], KNOWN).unwrap_err();
        assert_eq!(both.field, "message");
        let missing = Fields::default().required("name", "?name=foo").unwrap_err();
        assert_eq!(missing.to_string(), "name: is missing; write ?name=foo");
    }
}
