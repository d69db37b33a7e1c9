//! The rules that several requests share: names, tags, MAC addresses, sizes.
//!
//! Each is a `garde` validator. The message says what is allowed; the field's path is added by the server. The patterns say
//! the same in the schema, as far as a regular expression can (in JSON Schema's dialect, ECMA-262); `tests/it/fuzz.rs` of
//! the CLI looks for a request on which the two differ.

use schemars::Schema;
use serde_json::json;
use std::collections::BTreeMap;

/// The longest name, in characters.
pub const NAME_MAX: usize = 63;
/// What a name looks like, as the schema says it.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";
/// What [`reference`] asks for, as the schema says it.
pub const REFERENCE_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]{1,255}$";
/// A text without control characters.
pub const LINE_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// What [`xml_char`] asks of every character.
pub const XML_PATTERN: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]*$";
/// What [`mac`] asks for.
pub const MAC_PATTERN: &str = "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$";
/// What [`user`] asks for.
pub const USER_PATTERN: &str = "^[a-z_][a-z0-9_-]{0,31}$";
/// What [`device`] asks for.
pub const DEVICE_PATTERN: &str = "^vd[a-z]$";
/// What [`data_device`] asks for.
pub const DATA_DEVICE_PATTERN: &str = "^vd[b-z]$";
/// What [`absolute_path`] asks for, but for `..`.
pub const PATH_PATTERN: &str = r"^/([^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u001f\u007f-\u009f/])$";
/// What [`tags`] asks of a key.
const TAG_KEY_PATTERN: &str = "^[A-Za-z0-9._/-]{1,63}$";
/// What [`tags`] asks of a value.
const TAG_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufffe\uffff]{0,255}$";
/// The most virtual CPUs: what QEMU's q35 machine takes without an IOMMU.
pub const VCPUS_MAX: u32 = 255;
/// The least memory of a VM, in MiB: below this no firmware starts a kernel.
pub const MEMORY_MIB_MIN: u64 = 32;
/// The most memory of a VM, in MiB (16 TiB).
pub const MEMORY_MIB_MAX: u64 = 16 << 20;
/// The highest limit of a network interface, in kilobytes a second: what Linux's traffic control can count.
pub const NET_KB_PER_S_MAX: u64 = 4_000_000;
/// The highest limit of a disk, in requests a second.
pub const IOPS_MAX: u64 = 1_000_000_000;
/// The highest limit of a disk, in bytes a second.
pub const BYTES_PER_S_MAX: u64 = 1_000_000_000_000;
/// The largest disk, in GiB (64 TiB).
pub const DISK_GIB_MAX: u64 = 64 << 10;

/// Checks the name of a new object: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit, never of a UUID's form
/// (a name and an id must not be mistaken for each other).
pub fn name(value: &str, _: &()) -> garde::Result {
    let length = value.chars().count();
    if length == 0 || length > NAME_MAX {
        return Err(garde::Error::new(format!("must have 1 to {NAME_MAX} characters, has {length}")));
    }
    let first = value.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !first || !rest {
        return Err(garde::Error::new(
            "may have only a-z, A-Z, 0-9, '.', '_' and '-', and begins with a letter or digit",
        ));
    }
    if uuid::Uuid::try_parse(value).is_ok() {
        return Err(garde::Error::new("must not have the form of a UUID: that is how an id is told from a name"));
    }
    Ok(())
}

/// [`name`] for an optional field.
pub fn optional_name(value: &Option<String>, context: &()) -> garde::Result {
    value.as_deref().map_or(Ok(()), |value| name(value, context))
}

/// Checks a reference to an object, which may be a name or an id. Objects that Vmyard didn't make may have names that
/// it wouldn't give, so only length and control characters are checked.
pub fn reference(value: &str, _: &()) -> garde::Result {
    if value.is_empty() || value.chars().count() > 255 {
        return Err(garde::Error::new("must be a name or an id, of 1 to 255 characters"));
    }
    if value.chars().any(char::is_control) {
        return Err(garde::Error::new("must be a name or an id, without control characters"));
    }
    Ok(())
}

/// [`reference`] for an optional field.
pub fn optional_reference(value: &Option<String>, context: &()) -> garde::Result {
    value.as_deref().map_or(Ok(()), |value| reference(value, context))
}

/// Checks the name of a data disk's device.
pub fn data_device(value: &str, _: &()) -> garde::Result {
    match value.as_bytes() {
        [b'v', b'd', b'b'..=b'z'] => Ok(()),
        _ => Err(garde::Error::new(format!("must be one of vdb to vdz (vda is the system disk), is {value:?}"))),
    }
}

/// Checks the name of a disk's device.
pub fn device(value: &str, _: &()) -> garde::Result {
    match value.as_bytes() {
        [b'v', b'd', b'a'..=b'z'] => Ok(()),
        _ => Err(garde::Error::new(format!("must be one of vda to vdz, is {value:?}"))),
    }
}

/// Checks tags: at most 64, keys like names, values of at most 255 characters without control characters.
pub fn tags(value: &BTreeMap<String, String>, _: &()) -> garde::Result {
    if value.len() > 64 {
        return Err(garde::Error::new(format!("must have at most 64 tags, has {}", value.len())));
    }
    for (key, text) in value {
        let key_ok = (1..=NAME_MAX).contains(&key.chars().count())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
        if !key_ok {
            return Err(garde::Error::new(format!(
                "tag key {key:?} must have 1 to {NAME_MAX} of a-z, A-Z, 0-9, '.', '_', '-', '/'"
            )));
        }
        if text.chars().count() > 255 || text.chars().any(|c| !xml_char(c) || c.is_control()) {
            return Err(garde::Error::new(format!(
                "the value of tag {key:?} must have at most 255 characters, without control characters"
            )));
        }
    }
    Ok(())
}

/// What [`tags`] asks for, as the schema says it.
pub fn tags_schema(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), json!(64));
    schema.insert("propertyNames".to_owned(), json!({ "pattern": TAG_KEY_PATTERN }));
    schema.insert("additionalProperties".to_owned(), json!({ "type": "string", "pattern": TAG_PATTERN }));
}

/// Checks the text that a client gives a call to repeat it under. Not every database takes every control character.
pub fn client_token(value: &Option<String>, _: &()) -> garde::Result {
    let Some(value) = value else { return Ok(()) };
    match (1..=64).contains(&value.chars().count()) && !value.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(garde::Error::new("must have 1 to 64 characters, without control characters")),
    }
}

/// Checks a description: at most 1,000 characters that XML can hold.
pub fn description(value: &str, _: &()) -> garde::Result {
    if value.chars().count() > 1000 {
        return Err(garde::Error::new("must have at most 1000 characters"));
    }
    if !value.chars().all(xml_char) {
        return Err(garde::Error::new("has a control character that libvirt's XML can't hold"));
    }
    Ok(())
}

/// As [`mac`], for an address that may be absent.
pub fn optional_mac(value: &Option<String>, context: &()) -> garde::Result {
    value.as_ref().map_or(Ok(()), |value| mac(value, context))
}

/// Checks a unicast MAC address written as `52:54:00:12:34:56`.
pub fn mac(value: &str, _: &()) -> garde::Result {
    let octets: Vec<_> = value.split(':').collect();
    let well_formed = octets.len() == 6
        && octets.iter().all(|octet| octet.len() == 2 && octet.chars().all(|c| c.is_ascii_hexdigit()));
    if !well_formed {
        return Err(garde::Error::new(format!("must look like 52:54:00:12:34:56, is {value:?}")));
    }
    let first = u8::from_str_radix(octets[0], 16).unwrap_or(1);
    if first & 1 == 1 {
        return Err(garde::Error::new(format!("must be a unicast address (an even first octet), is {value:?}")));
    }
    Ok(())
}

/// Checks a boot order: one to three devices, none twice.
pub fn boot_order(value: &[crate::vm::BootDevice], _: &()) -> garde::Result {
    let twice = value.iter().enumerate().find(|(at, device)| value[..*at].contains(device));
    match (value.is_empty(), twice) {
        (true, _) => Err(garde::Error::new("must name at least one of disk, cdrom and network")),
        (_, Some((at, _))) => Err(garde::Error::new(format!("names a device twice (the {}. one)", at + 1))),
        _ => Ok(()),
    }
}

/// Checks the name of a Unix user.
pub fn user(value: &str, _: &()) -> garde::Result {
    let first = value.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let rest = value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    if !first || !rest || value.len() > 32 {
        return Err(garde::Error::new(
            "must be a Unix user name: a-z, 0-9, '_' and '-', first a letter or '_', at most 32",
        ));
    }
    Ok(())
}

/// [`user`] for an optional field.
pub fn optional_user(value: &Option<String>, context: &()) -> garde::Result {
    value.as_deref().map_or(Ok(()), |value| user(value, context))
}

/// Checks an absolute path of a file on a node.
pub fn absolute_path(value: &str, _: &()) -> garde::Result {
    if !value.starts_with('/') || value.len() > 4096 || value.chars().any(char::is_control) {
        return Err(garde::Error::new("must be an absolute path on the node, of at most 4096 bytes"));
    }
    if value.split('/').any(|part| part == "..") || value.ends_with('/') {
        return Err(garde::Error::new("must be the path of a file, without '..'"));
    }
    Ok(())
}

/// Whether XML 1.0 can hold the character.
pub fn xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "Web-1.example_2", "0", &"x".repeat(63)] {
            assert!(name(good, &()).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            &"x".repeat(64),
            "-a",
            ".a",
            "a/b",
            "a'b",
            "a;b",
            "a\nb",
            "a b",
            "naïve",
            "虚拟机",
            "6f1f3c1e-8a0b-4a7e-9d55-000000000001",
            "6f1f3c1e8a0b4a7e9d55000000000001",
        ] {
            assert!(name(bad, &()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn macs() {
        assert!(optional_mac(&Some("52:54:00:ab:CD:ef".into()), &()).is_ok());
        for bad in
            ["", "52:54:00:ab:cd", "52-54-00-ab-cd-ef", "53:54:00:ab:cd:ef", "52:54:00:ab:cd:zz", "525:4:00:ab:cd:ef"]
        {
            assert!(optional_mac(&Some(bad.into()), &()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        assert!(absolute_path("/srv/images/debian 12.qcow2", &()).is_ok());
        for bad in ["", "a", "/a/../b", "/a/", "/a\nb"] {
            assert!(absolute_path(bad, &()).is_err(), "{bad:?}");
        }
    }
}
