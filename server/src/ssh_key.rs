//! SSH public keys: what is in them, and which are taken.

use api::{keypair::KeyAlgorithm, ssh_key::one_line};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PublicKey as Parsed, public::KeyData};

/// The least bits of an RSA key: what NIST SP 800-131A asks for, and OpenSSH's own default for new keys until 2019.
const RSA_BITS_MIN: u32 = 2048;
/// The most: what OpenSSH takes.
const RSA_BITS_MAX: u32 = 16_384;

/// A public key that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The key as a line of authorized_keys, without options.
    pub line: String,
    /// What kind of key it is.
    pub algorithm: KeyAlgorithm,
    /// Its size.
    pub bits: u32,
    /// Its fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Its comment.
    pub comment: String,
}

impl PublicKey {
    /// Reads an OpenSSH public key. The error says why it isn't taken, and has nothing of the text: that may be a private key.
    pub fn read(text: &str) -> Result<PublicKey, String> {
        api::ssh_key::public_key(text, &()).map_err(|error| error.to_string())?;
        let text = one_line(text);
        let kind = text.split(' ').next().unwrap_or_default();
        if kind.contains("-cert-v") {
            return Err("is a certificate: give the public key that it was made of".to_owned());
        }
        let damaged = || "is no whole OpenSSH public key: a part of it may be missing".to_owned();
        let parsed = Parsed::from_openssh(text).map_err(|_| damaged())?;
        let (algorithm, bits) = match (parsed.algorithm(), parsed.key_data()) {
            (Algorithm::Ed25519, _) => (KeyAlgorithm::Ed25519, 256),
            (Algorithm::SkEd25519, _) => (KeyAlgorithm::Ed25519Sk, 256),
            (Algorithm::SkEcdsaSha2NistP256, _) => (KeyAlgorithm::EcdsaSk, 256),
            (Algorithm::Ecdsa { curve }, _) => (KeyAlgorithm::Ecdsa, bits_of(curve)),
            (_, KeyData::Rsa(key)) => {
                let modulus = key.n.as_positive_bytes().ok_or_else(damaged)?;
                let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
                (KeyAlgorithm::Rsa, (modulus.len() as u32 * 8).saturating_sub(unused))
            }
            (Algorithm::Dsa, _) => return Err("is a DSA key, which is too weak: make an Ed25519 key".to_owned()),
            _ => return Err("is of a kind that isn't known: give an Ed25519, RSA or ECDSA key".to_owned()),
        };
        if algorithm == KeyAlgorithm::Rsa && !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            let why = if bits < RSA_BITS_MIN { "which is too weak" } else { "which OpenSSH doesn't take" };
            return Err(format!("is an RSA key of {bits} bits, {why}: {RSA_BITS_MIN} to {RSA_BITS_MAX} will do"));
        }
        Ok(PublicKey {
            line: parsed.to_openssh().map_err(|_| damaged())?,
            algorithm,
            bits,
            fingerprint: parsed.fingerprint(HashAlg::Sha256).to_string(),
            comment: parsed.comment().to_owned(),
        })
    }
}

fn bits_of(curve: EcdsaCurve) -> u32 {
    match curve {
        EcdsaCurve::NistP256 => 256,
        EcdsaCurve::NistP384 => 384,
        EcdsaCurve::NistP521 => 521,
    }
}
