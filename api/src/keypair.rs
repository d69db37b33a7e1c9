//! SSH keypairs: public keys under a name, for the users of VMs.

use crate::{Access, Rpc, Time, rules, ssh_key};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An SSH keypair. The server has only its public half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Keypair {
    /// The keypair's id.
    pub id: Uuid,
    /// Its name, unique without case.
    pub name: String,
    /// What kind of key it is.
    pub algorithm: KeyAlgorithm,
    /// Its size in bits.
    pub bits: u32,
    /// Its fingerprint, as `ssh-keygen -l` prints it: `SHA256:…`.
    pub fingerprint: String,
    /// The public key, as a line of authorized_keys.
    pub public_key: String,
    /// The public key's comment.
    pub comment: String,
    /// When it was made or imported.
    pub created_at: Time,
}

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyAlgorithm {
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa,
    /// ECDSA on a NIST curve.
    Ecdsa,
    /// Ed25519 on a security key (FIDO).
    Ed25519Sk,
    /// ECDSA on a security key (FIDO).
    EcdsaSk,
}

/// A kind of key that create-keypair makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewKeyAlgorithm {
    /// Ed25519.
    #[default]
    Ed25519,
    /// RSA, for guests that are too old for Ed25519.
    Rsa,
}

/// Makes an SSH keypair, keeps the public key, and tells the private key this one time, in the form of OpenSSH and without a
/// passphrase. Nobody can tell it again later.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateKeypair {
    /// Its name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// Which kind of key; `ed25519` when absent.
    #[serde(default)]
    #[garde(skip)]
    pub algorithm: NewKeyAlgorithm,
    /// An RSA key's size: 3072 (when absent) or 4096. An Ed25519 key has 256 bits.
    #[garde(inner(custom(check_bits)))]
    #[schemars(extend("enum" = [3072, 4096, null]))]
    pub bits: Option<u32>,
    /// The public key's comment; the keypair's name when absent.
    #[garde(inner(custom(check_comment)))]
    #[schemars(length(max = 255), regex(pattern = rules::LINE_PATTERN))]
    pub comment: Option<String>,
}

/// A new keypair with its private key.
// Not `Debug`, so that no log has it.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedKeypair {
    /// The keypair.
    #[serde(flatten)]
    pub record: Keypair,
    /// The private key, for a file that only its owner can read (mode 0600). Asked for again (describe-task, or the same call
    /// under its client_token), it is given for 10 minutes, to the same caller only; then it is null.
    pub private_key: Option<String>,
    /// True when the private key is not given any more.
    #[serde(default)]
    pub secret_expired: bool,
}

impl Rpc for CreateKeypair {
    const NAME: &'static str = "create-keypair";
    const ACCESS: Access = Access::Operator;
    const SECRETS: &'static [&'static str] = &["private_key"];
    type Reply = CreatedKeypair;
}

/// Imports a public key that was made elsewhere. RSA keys of less than 2048 bits, DSA keys and certificates are refused. The
/// same key may be imported under several names.
// Not `Debug`: what is pasted here may be a private key.
#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ImportKeypair {
    /// Its name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// The OpenSSH public key: what is in a file that ends with `.pub`.
    #[garde(custom(ssh_key::public_key))]
    #[schemars(length(max = 16_384), regex(pattern = ssh_key::PATTERN))]
    pub public_key: String,
}

impl Rpc for ImportKeypair {
    const NAME: &'static str = "import-keypair";
    const ACCESS: Access = Access::Operator;
    type Reply = Keypair;
}

/// Lists the keypairs, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListKeypairs {
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of keypairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Keypairs {
    /// The keypairs.
    pub keypairs: Vec<Keypair>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListKeypairs {
    const NAME: &'static str = "list-keypairs";
    const ACCESS: Access = Access::Viewer;
    type Reply = Keypairs;
}

/// Describes a keypair.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeKeypair {
    /// The keypair, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub keypair: String,
}

impl Rpc for DescribeKeypair {
    const NAME: &'static str = "describe-keypair";
    const ACCESS: Access = Access::Viewer;
    type Reply = Keypair;
}

/// Deletes a keypair: its name is free again, and no VM can be given it any more. VMs that have its public key keep it, and who
/// has the private key can still log in there; reset-vm-keypair replaces the keys of a VM's user.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteKeypair {
    /// The keypair, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub keypair: String,
}

/// What delete-keypair answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedKeypair {
    /// The id of the keypair that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
}

impl Rpc for DeleteKeypair {
    const NAME: &'static str = "delete-keypair";
    const ACCESS: Access = Access::Operator;
    type Reply = DeletedKeypair;
}

fn check_bits(value: &u32, _: &()) -> garde::Result {
    match value {
        3072 | 4096 => Ok(()),
        _ => Err(garde::Error::new(format!("must be 3072 or 4096, is {value}"))),
    }
}

fn check_comment(value: &str, _: &()) -> garde::Result {
    if value.chars().count() > 255 || value.chars().any(char::is_control) {
        return Err(garde::Error::new("must have at most 255 characters, without control characters"));
    }
    Ok(())
}
