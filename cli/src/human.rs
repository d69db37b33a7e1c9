//! Values as people read them.

use api::Time;
use serde_json::Value;

/// Bytes in the unit that fits: `128 MiB`, `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // What would be rounded to 1024 is 1 of the next.
        if value < 1023.95 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{} {unit}", (value * 10.0).round() / 10.0)
}

/// Milliseconds in the two units that fit: `0.4 s`, `12 s`, `3 min 4 s`.
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let s = ms / 1000;
    match s {
        0..=9 => format!("{s}.{} s", ms % 1000 / 100),
        10..=59 => format!("{s} s"),
        60..=3599 => format!("{} min {} s", s / 60, s % 60),
        3600..=86_399 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A moment as it is written on the command line.
pub fn moment(text: &str) -> Result<Time, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// A length of time as it is written on the command line, in seconds: `90s`, `15m`, `1h`, `7d`.
pub fn length(text: &str) -> Result<i64, String> {
    let wrong = || format!("must be a number with s, m, h or d, like 90s or 7d; is {text:?}");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

/// The time between two moments of an answer; empty unless it has both.
pub fn between(begin: &Value, end: &Value) -> String {
    let time = |value: &Value| serde_json::from_value::<Time>(value.clone()).ok();
    match (time(begin), time(end)) {
        (Some(begin), Some(end)) => duration(end.0 - begin.0),
        _ => String::new(),
    }
}

/// A field of an answer; its unit is the end of its name.
pub fn value(field: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) if field.ends_with("_at") || matches!(field, "at" | "since") => to_the_second(text),
        Value::String(text) => text.clone(),
        Value::Number(number) => match (field.rsplit_once('_').map(|(_, unit)| unit), number.as_u64()) {
            (Some("bytes"), Some(bytes)) => size(bytes),
            (Some("mib"), Some(mib)) => size(mib.saturating_mul(1 << 20)),
            (Some("gib"), _) => format!("{number} GiB"),
            (Some("percent"), _) => format!("{number} %"),
            (Some("s"), _) => format!("{number} s"),
            (Some("ms"), _) => format!("{number} ms"),
            _ => number.to_string(),
        },
        Value::Array(values) => values.iter().map(|one| self::value(field, one)).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let texts = fields.iter().map(|(name, one)| (self::name(name), self::value(name, one)));
            let texts = texts.filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("{name} {text}"));
            texts.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A field's name without its unit, which the value shows.
pub fn name(field: &str) -> String {
    let unit =
        ["_bytes", "_mib", "_gib", "_percent", "_at", "_s", "_ms"].iter().find_map(|unit| field.strip_suffix(unit));
    unit.unwrap_or(field).replace('_', " ")
}

/// `2026-11-24T18:36:26.660Z` without its milliseconds.
fn to_the_second(moment: &str) -> String {
    match moment.split_once('.') {
        Some((seconds, rest)) if rest.ends_with('Z') => format!("{seconds}Z"),
        _ => moment.to_owned(),
    }
}

/// What a person has typed as a value of the API's, which spells it alike.
pub fn one_of<T: serde::de::DeserializeOwned>(text: &str, allowed: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::json!(text)).map_err(|_| format!("must be {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!((length("90s"), length("15m"), length("7d")), (Ok(90), Ok(900), Ok(604_800)));
        for wrong in ["", "h", "5", "-1h", "0s", "1w", "999999999999999999d", "5é"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
    use serde_json::json;

    #[test]
    fn sizes_and_durations() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), ((1 << 20) - 1, "1 MiB")];
        for (bytes, text) in
            sizes.into_iter().chain([(128 << 20, "128 MiB"), (5 << 40, "5 TiB"), (u64::MAX, "16384 PiB")])
        {
            assert_eq!(size(bytes), text);
        }
        for (ms, text) in
            [(-5, "0.0 s"), (430, "0.4 s"), (59_999, "59 s"), (184_000, "3 min 4 s"), (7_500_000, "2 h 5 min")]
        {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(duration(90_000_000), "1 d 1 h");
        assert_eq!(between(&json!("2026-11-24T18:36:26.660Z"), &json!("2026-11-24T18:36:27Z")), "0.3 s");
        assert_eq!(between(&json!("2026-11-24T18:36:26.660Z"), &json!(null)), "");
    }

    #[test]
    fn values_by_the_unit_in_their_name() {
        for (field, given, text) in [
            ("memory_mib", json!(1536), "1.5 GiB"),
            ("size_gib", json!(0.5), "0.5 GiB"),
            ("available_bytes", json!(2048), "2 KiB"),
            ("created_at", json!("2026-11-24T18:36:26.660Z"), "2026-11-24T18:36:26Z"),
            ("active", json!(true), "yes"),
            ("vms", json!(3), "3"),
            ("copies", json!([{"node": "a", "pool": "default"}]), "node a, pool default"),
        ] {
            assert_eq!(value(field, &given), text);
        }
        assert_eq!((name("free_memory_mib").as_str(), name("id").as_str()), ("free memory", "id"));
    }
}
