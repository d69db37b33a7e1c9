//! OpenSSH public keys, as they look from outside. What is in them the server reads.

/// The longest, in bytes.
pub const BYTES_MAX: usize = 16_384;
/// What [`public_key`] asks for, as the schema says it.
pub const PATTERN: &str =
    r"^(ssh|ecdsa-sha2|sk-ssh|sk-ecdsa)-[!-~]* [A-Za-z0-9+/=]{17,}( [^\u0000-\u001f\u007f-\u009f]*)?[ \t\r\n]*$";

/// Checks an OpenSSH public key on one line: kind, Base64, comment. No message has anything of the value: it may be a private
/// key that was pasted by mistake.
pub fn public_key(value: &str, _: &()) -> garde::Result {
    if value.len() > BYTES_MAX {
        return Err(garde::Error::new(format!("must have at most {BYTES_MAX} bytes, has {}", value.len())));
    }
    if value.contains("PRIVATE KEY") {
        return Err(garde::Error::new(
            "is a private key, which nobody else may have: give the public one (its file ends with .pub), and replace this \
             one if it is in use",
        ));
    }
    let mut parts = one_line(value).splitn(3, ' ');
    let mut part = || parts.next().unwrap_or_default();
    let (kind, body, comment) = (part(), part(), part());
    let kind_ok = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| kind.starts_with(prefix));
    let body_ok = body.len() > 16 && body.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
    if !kind_ok || !kind.chars().all(|c| c.is_ascii_graphic()) || !body_ok || comment.chars().any(char::is_control) {
        return Err(garde::Error::new("must be an OpenSSH public key on one line: 'ssh-ed25519 AAAA… comment'"));
    }
    Ok(())
}

/// A key without the line's end that a file has.
pub fn one_line(value: &str) -> &str {
    value.trim_end_matches([' ', '\t', '\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let body = "AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        for good in ["", " ", " me: at #1 ü", " me\n", "\r\n"] {
            assert!(public_key(&format!("ssh-ed25519 {body}{good}"), &()).is_ok(), "{good:?}");
        }
        let long = format!("ssh-ed25519 {body} {}", "x".repeat(BYTES_MAX));
        let options = format!("restrict ssh-ed25519 {body}");
        let two = format!("ssh-ed25519 {body}\nssh-ed25519 {body}");
        for bad in ["", "x", body, "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519  AAAA", &long, &options, &two] {
            assert!(public_key(bad, &()).is_err(), "{bad:?}");
        }
        let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----\n";
        let message = public_key(private, &()).unwrap_err().to_string();
        assert!(message.contains("private key") && !message.contains("b3Bl"), "{message}");
    }
}
