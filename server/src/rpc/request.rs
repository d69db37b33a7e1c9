//! Reading a request: JSON to the method's type, with the path of what is wrong.

use crate::{Error, Result};
use api::{FieldError, Rpc};
use serde::Serialize;
use serde_json::{Map, Value};

/// The largest request body, in bytes.
pub(super) const BODY_MAX: usize = 1 << 20;

/// The body's object. An empty body is an empty object.
pub(super) fn parse(body: &[u8]) -> Result<Map<String, Value>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::field("", "the body must be a JSON object")),
        Err(error) => Err(Error::field("", format!("the body is not JSON: {error}"))),
    }
}

/// Takes the field `wait` out, which every mutating method has.
pub(super) fn take_wait(fields: &mut Map<String, Value>) -> Result<bool> {
    match fields.remove("wait") {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(wait)) => Ok(wait),
        Some(other) => Err(Error::field("wait", format!("must be true or false, is {other}"))),
    }
}

/// The method's request, checked.
pub(super) fn read<R: Rpc>(fields: Map<String, Value>) -> Result<R> {
    let request: R = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        Error::field(field_of(&path, &message), message)
    })?;
    request.validate().map_err(|report| {
        let error = |(path, error): &(garde::Path, garde::Error)| FieldError {
            field: path.to_string(),
            message: error.message().to_owned(),
        };
        Error::Invalid(report.iter().map(error).collect())
    })?;
    Ok(request)
}

/// The path of the field at fault. For an unknown or missing field serde says the path of the object around it, and the
/// field's name in the message.
fn field_of(path: &str, message: &str) -> String {
    let named = ["unknown field `", "missing field `"]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        .and_then(|rest| rest.split('`').next());
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
        ] {
            assert_eq!(fault(&body).field, field, "{body}");
        }
    }

    #[test]
    fn wait_must_be_a_truth() {
        let mut fields = parse(br#"{"wait": "no"}"#).unwrap();
        assert!(take_wait(&mut fields).is_err());
        assert!(!take_wait(&mut parse(br#"{"wait": false}"#).unwrap()).unwrap());
    }
}
