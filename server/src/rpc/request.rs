//! Reading a request: JSON to the method's type, with the path of what is wrong.

use super::strict::{self, Strict};
use crate::{Error, Result, auth::ReplayKey};
use api::{FieldError, Rpc, task::Mutation};
use garde::Validate;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The largest request body, in bytes.
pub(super) const BODY_MAX: usize = 1 << 20;

/// The body's object. An empty body is an empty object.
pub(super) fn parse(body: &[u8]) -> Result<Map<String, Value>> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match strict::parse(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::field("", "the body must be a JSON object")),
        Err((field, message)) => Err(Error::field(field, message)),
    }
}

/// Takes the fields out that every mutating method has beside its own.
pub(super) fn take_mutation(fields: &mut Map<String, Value>) -> Result<Mutation> {
    let taken = ["wait", "plan", "client_token"].iter().filter_map(|name| fields.remove_entry(*name)).collect();
    read_any(taken)
}

/// The hash of a request: the same for the same fields, in whichever order.
pub(super) fn hash(key: &ReplayKey, fields: &Map<String, Value>) -> String {
    blake3::keyed_hash(&key.0, Value::Object(fields.clone()).to_string().as_bytes()).to_hex().to_string()
}

/// The method's request, checked.
pub(super) fn read<R: Rpc>(fields: Map<String, Value>) -> Result<R> {
    read_any(fields)
}

fn read_any<R: DeserializeOwned + Validate<Context = ()>>(fields: Map<String, Value>) -> Result<R> {
    let request: R = serde_path_to_error::deserialize(Strict(Value::Object(fields))).map_err(|error| {
        let path = error.path().to_string();
        let fault = error.into_inner();
        Error::field(field_of(&path, fault.named.as_deref()), fault.message)
    })?;
    request.validate().map_err(|report| {
        let error = |(path, error): &(garde::Path, garde::Error)| FieldError {
            field: path.to_string(),
            message: what_is_allowed(error.message()),
        };
        Error::Invalid(report.iter().map(error).collect())
    })?;
    Ok(request)
}

/// What garde's own rules say, as what is allowed; ours say it already.
fn what_is_allowed(message: &str) -> String {
    for (prefix, words) in [
        ("lower than ", "must be at least "),
        ("greater than ", "must be at most "),
        ("length is lower than ", "must have a length of at least "),
        ("length is greater than ", "must have a length of at most "),
    ] {
        if let Some(limit) = message.strip_prefix(prefix) {
            return format!("{words}{limit}");
        }
    }
    message.to_owned()
}

/// The path of the field at fault. For an unknown or missing field serde says the path of the object around it.
fn field_of(path: &str, named: Option<&str>) -> String {
    match (path, named) {
        (".", Some(name)) => name.to_owned(),
        (".", None) => String::new(),
        // With an unknown field the path has its name already.
        (path, Some(name)) if path != name && !path.ends_with(&format!(".{name}")) => format!("{path}.{name}"),
        (path, _) => path.to_owned(),
    }
}

pub(super) fn to_value(reply: &impl Serialize) -> Result<Value> {
    serde_json::to_value(reply).map_err(|error| Error::Internal(format!("write a reply: {error}")))
}

pub(super) fn to_text(reply: &impl Serialize) -> Result<String> {
    serde_json::to_string(reply).map_err(|error| Error::Internal(format!("write a reply: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::vm::CreateVm;

    fn fault(body: &str) -> FieldError {
        match parse(body.as_bytes()).and_then(read::<CreateVm>) {
            Err(Error::Invalid(mut fields)) => fields.remove(0),
            other => panic!("{other:?}"),
        }
    }

    const GOOD: &str = r#"{"name":"a","template":"t","vcpus":1,"memory_mib":64}"#;

    #[test]
    fn good_ones_pass() {
        read::<CreateVm>(parse(GOOD.as_bytes()).unwrap()).unwrap();
    }

    #[test]
    fn faults_name_the_field() {
        let with = |extra: &str| GOOD.replace('}', &format!(",{extra}}}"));
        for (body, field) in [
            (with(r#""colour":1"#), "colour"),
            (GOOD.replace(r#""vcpus":1,"#, ""), "vcpus"),
            (GOOD.replace("64", r#""64""#), "memory_mib"),
            (GOOD.replace(r#""vcpus":1"#, r#""vcpus":0"#), "vcpus"),
            (GOOD.replace(r#""vcpus":1"#, r#""vcpus":10000"#), "vcpus"),
            (GOOD.replace(r#""vcpus":1"#, r#""vcpus":-1"#), "vcpus"),
            (GOOD.replace(r#""a""#, r#""a/b""#), "name"),
            (with(r#""networks":[{"network":"n","mac":"no"}]"#), "networks[0].mac"),
            (with(r#""networks":[{"network":"n"},{"mac":"no"}]"#), "networks[1].network"),
            (with(r#""networks":[{"network":"n","colour":1}]"#), "networks[0].colour"),
            (with(r#""cloud_init":{"user":"Root User"}"#), "cloud_init.user"),
            (with(r#""cloud_init":{"ssh_keys":["x"]}"#), "cloud_init.ssh_keys[0]"),
            ("[]".to_owned(), ""),
            ("{".to_owned(), ""),
            ("[".repeat(200), ""),
            (" ".to_owned(), ""),
        ] {
            assert_eq!(fault(&body).field, field, "{body}");
        }
    }

    #[test]
    fn the_fields_of_every_mutation() {
        let take = |body: &str| take_mutation(&mut parse(body.as_bytes()).unwrap());
        assert!(take(r#"{"wait": "no"}"#).is_err());
        assert!(take(r#"{"client_token": ""}"#).is_err());
        // PostgreSQL takes no NUL.
        assert!(take(r#"{"client_token": "a\u0000b"}"#).is_err());
        assert!(take(&format!(r#"{{"client_token": "{}"}}"#, "x".repeat(65))).is_err());
        assert_eq!(take(r#"{"wait": false, "vm": "a"}"#).unwrap().wait, Some(false));
        let hash = |body: &str| hash(&ReplayKey([7; 32]), &parse(body.as_bytes()).unwrap());
        assert_eq!(hash(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#), hash(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#));
        assert_ne!(hash(r#"{"a": 1}"#), hash(r#"{"a": 2}"#));
    }
}
