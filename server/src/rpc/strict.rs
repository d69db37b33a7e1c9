//! JSON as requests are read: no key twice, no array for an object, and errors that say what the API expects.
//!
//! serde's own words are Rust's ("invalid type: string, expected u32"), and its structs can be read from arrays; a JSON
//! parser takes the last of two fields with the same name, where another program on the way may have looked at the first.

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};
use std::{cell::RefCell, fmt};

/// How many characters of a wrong text are shown.
const SHOWN: usize = 60;

/// Reads JSON. Where an object has a field twice, the error has its path.
pub(super) fn parse(json: &[u8]) -> Result<Value, (String, String)> {
    let twice = RefCell::new(String::new());
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = Unique { path: String::new(), twice: &twice }.deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => Err((twice.take(), "is there twice".to_owned())),
        Err(error) => Err((String::new(), format!("the body is not JSON: {error}"))),
    }
}

/// A value at this path whose objects have no field twice.
struct Unique<'a> {
    path: String,
    twice: &'a RefCell<String>,
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) =
            seq.next_element_seed(Unique { path: format!("{}[{}]", self.path, values.len()), twice: self.twice })?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{key}", self.path);
            if fields.contains_key(&key) {
                self.twice.replace(path);
                return Err(de::Error::custom("a field is there twice"));
            }
            let value = map.next_value_seed(Unique { path, twice: self.twice })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// JSON that a request's type is read from.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (.., value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::String(value) => visitor.visit_string(value),
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Strict))),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (key, Strict(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Object(_) => self.deserialize_any(visitor),
            other => Err(Fault::wrong("an object", &shown(&other))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(variant) => visitor.visit_enum(variant.into_deserializer()),
            other => Err(Fault::wrong(&one_of(variants), &shown(&other))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.whole().deserialize_any(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.whole().deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl Strict {
    /// JSON has one kind of number: 64.0 is the whole number 64.
    fn whole(self) -> Strict {
        match self.0.as_f64() {
            Some(number)
                if self.0.is_f64() && number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number) =>
            {
                Strict((number as u64).into())
            }
            _ => self,
        }
    }
}

impl IntoDeserializer<'_, Fault> for Strict {
    type Deserializer = Strict;

    fn into_deserializer(self) -> Strict {
        self
    }
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong, and what is allowed.
    pub(super) message: String,
    /// The field that is missing or unknown; else it is the value itself.
    pub(super) named: Option<String>,
}

impl Fault {
    fn wrong(expected: &str, found: &str) -> Fault {
        Fault { message: format!("must be {expected}, is {found}"), named: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        let message = message.to_string();
        // What the types of other crates say of a text that they can't read.
        let message = match message.as_str() {
            text if text.starts_with("UUID parsing failed") => {
                "must be a UUID, like 6f1f3c1e-8a0b-4a7e-9d55-000000000001".to_owned()
            }
            "invalid IPv4 address syntax" => "must be an IPv4 address, like 192.168.122.10".to_owned(),
            "invalid IP address syntax" => "must be an IP address, like 192.168.122.10 or fd00::7".to_owned(),
            _ => message,
        };
        Fault { message, named: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::wrong(in_our_words(&expected.to_string()), &in_json(found))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        let expected = match expected.to_string().as_str() {
            "u32" => format!("a whole number from 0 to {}", u32::MAX),
            "u64" => "a whole number from 0".to_owned(),
            other => in_our_words(other).to_owned(),
        };
        Fault::wrong(&expected, &in_json(found))
    }

    fn unknown_variant(found: &str, variants: &'static [&'static str]) -> Fault {
        Fault::wrong(&one_of(variants), &in_json(Unexpected::Str(found)))
    }

    fn unknown_field(found: &str, fields: &'static [&'static str]) -> Fault {
        let message = match fields {
            [] => "is no field here; there are none".to_owned(),
            fields => format!("is no field here; there are {}", fields.join(", ")),
        };
        Fault { message, named: Some(found.to_owned()) }
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault { message: "is missing".to_owned(), named: Some(field.to_owned()) }
    }
}

/// What serde's types call what they expect.
fn in_our_words(expected: &str) -> &str {
    match expected {
        "u32" | "u64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a map" => "an object",
        "a sequence" => "an array",
        "a UUID string" => "a UUID",
        "IPv4 address" => "an IPv4 address",
        "IP address" => "an IP address",
        other => other,
    }
}

fn one_of(variants: &[&str]) -> String {
    format!("one of {}", variants.join(", "))
}

fn in_json(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => shown(&value.into()),
        Unexpected::Str(value) => shown(&value.into()),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// A value as an error says it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > SHOWN => {
            Value::String(text.chars().take(SHOWN).chain(['…']).collect()).to_string()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{FieldError, vm::CreateVm};

    /// What a request is refused for, with `more` in place of the field of the same name.
    fn refused(more: &str) -> FieldError {
        let mut request = serde_json::json!({"name": "a", "template": "t", "vcpus": 1, "memory_mib": 64});
        let Value::Object(more) = serde_json::from_str(more).unwrap() else { panic!("{more}") };
        request.as_object_mut().unwrap().extend(more);
        match super::super::request::parse(request.to_string().as_bytes())
            .and_then(super::super::request::read::<CreateVm>)
        {
            Err(crate::Error::Invalid(mut fields)) => fields.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_are_in_the_words_of_the_api() {
        for (more, field, message) in [
            (r#"{"vcpus": "64"}"#, "vcpus", r#"must be a whole number, is "64""#),
            (r#"{"vcpus": null}"#, "vcpus", "must be a whole number, is null"),
            (r#"{"vcpus": 1.5}"#, "vcpus", "must be a whole number, is 1.5"),
            (r#"{"vcpus": -1}"#, "vcpus", "must be a whole number from 0 to 4294967295, is -1"),
            (r#"{"vcpus": 0}"#, "vcpus", "must be at least 1"),
            (r#"{"memory_mib": 1e99}"#, "memory_mib", "must be a whole number, is 1e+99"),
            (r#"{"name": 1}"#, "name", "must be a string, is 1"),
            (r#"{"name": ["a"]}"#, "name", "must be a string, is an array"),
            (r#"{"start": "yes"}"#, "start", r#"must be true or false, is "yes""#),
            (r#"{"tags": []}"#, "tags", "must be an object, is an array"),
            (r#"{"tags": null}"#, "tags", "must be an object, is null"),
            (r#"{"networks": {}}"#, "networks", "must be an array, is an object"),
            (r#"{"networks": [["default", null, null]]}"#, "networks[0]", "must be an object, is an array"),
            (
                r#"{"networks": [{"network": "n", "ip": "1.2"}]}"#,
                "networks[0].ip",
                "must be an IPv4 address, like 192.168.122.10",
            ),
            (
                r#"{"networks": [{"network": "n", "gateway": "home"}]}"#,
                "networks[0].gateway",
                "must be an IP address, like 192.168.122.10 or fd00::7",
            ),
            (r#"{"networks": [{"network": "n", "gateway": 7}]}"#, "networks[0].gateway", "must be an IP address, is 7"),
            (r#"{"networks": [{}]}"#, "networks[0].network", "is missing"),
            (
                r#"{"networks": [{"net": "n"}]}"#,
                "networks[0].net",
                "is no field here; there are network, mac, ip, addresses, gateway, nameservers",
            ),
            (r#"{"cloud_init": []}"#, "cloud_init", "must be an object, is an array"),
            (r#"{"firmware": "efi"}"#, "firmware", r#"must be one of bios, uefi, is "efi""#),
            (r#"{"firmware": {"bios": null}}"#, "firmware", "must be one of bios, uefi, is an object"),
        ] {
            let fault = refused(more);
            assert_eq!((fault.field.as_str(), fault.message.as_str()), (field, message), "{more}");
        }
        let long = refused(&format!(r#"{{"vcpus": "{}"}}"#, "é".repeat(1000)));
        assert!(long.message.len() < 200, "{long:?}");
    }

    #[test]
    fn a_whole_number_may_have_a_fraction_of_zero() {
        for (text, number) in [("64.0", 64), ("6.4e1", 64), ("-0", 0)] {
            let value = parse(text.as_bytes()).unwrap();
            assert_eq!(<u64 as serde::Deserialize>::deserialize(Strict(value)).unwrap(), number);
        }
    }

    #[test]
    fn no_field_is_there_twice() {
        for (body, path) in [
            (r#"{"a": 1, "a": 1}"#, "a"),
            (r#"{"a": {"b": [0, {"c": 1, "d": 2, "c": 3}]}}"#, "a.b[1].c"),
            (r#"{"a": 1, "\u0061": 1}"#, "a"),
        ] {
            assert_eq!(parse(body.as_bytes()), Err((path.to_owned(), "is there twice".to_owned())), "{body}");
        }
        assert!(parse(br#"{"a": {"b": 1}, "b": {"b": 1}}"#).is_ok());
        for body in ["", " ", "{} {}", "{\"a\": 1,}", "{\"a\": \"\\ud800\"}", "{\"a\": 1e400}", "\u{feff}{}"] {
            let (field, message) = parse(body.as_bytes()).unwrap_err();
            assert!(field.is_empty() && message.starts_with("the body is not JSON"), "{body:?}: {message}");
        }
    }
}
