//! The beginning of RFB, up to where client and server are passed through: versions and security (RFC 6143, 7.1).
//!
//! A client is greeted by us, and the VNC server of QEMU by us, so that its password stays with us: what the client is asked for
//! is the ticket's.

use des::{
    Des,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security types.
const NONE: u8 = 1;
const VNC_AUTHENTICATION: u8 = 2;
/// The longest reason that is read.
const REASON_MAX: u32 = 4096;

/// What a client may be asked.
pub(super) enum Security<'a> {
    /// Nothing.
    None,
    /// This password, of 8 characters.
    Password(&'a str),
}

/// A client that has come through, and waits for the word.
pub(super) struct Greeted<S> {
    stream: S,
    /// Whether it is told how the security went, and whether with a reason.
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Result,
    ResultAndReason,
}

/// Greets a client. A wrong password is `PermissionDenied`, and the client is told.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    security: Security<'_>,
) -> Result<Greeted<S>> {
    stream.write_all(VERSION).await?;
    stream.flush().await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    let minor = minor(&version)?;
    let kind = match security {
        Security::None => NONE,
        Security::Password(_) => VNC_AUTHENTICATION,
    };
    if minor >= 7 {
        stream.write_all(&[1, kind]).await?;
        stream.flush().await?;
        if stream.read_u8().await? != kind {
            return Err(invalid("the client chose a security type that it was not offered"));
        }
    } else {
        // Before 3.7 the server decides.
        stream.write_all(&u32::from(kind).to_be_bytes()).await?;
    }
    let told = match (&security, minor) {
        (_, 8..) => Told::ResultAndReason,
        (Security::Password(_), _) => Told::Result,
        (Security::None, _) => Told::Nothing,
    };
    let mut greeted = Greeted { stream, told };
    if let Security::Password(password) = security {
        let challenge = crate::seed::random_bytes::<16>().map_err(Error::other)?;
        greeted.stream.write_all(&challenge).await?;
        greeted.stream.flush().await?;
        let mut response = [0; 16];
        greeted.stream.read_exact(&mut response).await?;
        // Hashes are compared in constant time.
        if blake3::hash(&response) != blake3::hash(&answer(challenge, password)) {
            greeted.refuse("the password is wrong").await?;
            return Err(Error::new(ErrorKind::PermissionDenied, "the password is wrong"));
        }
    }
    Ok(greeted)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeted<S> {
    /// Lets the client in.
    pub(super) async fn accept(mut self) -> Result<S> {
        if self.told != Told::Nothing {
            self.stream.write_all(&0_u32.to_be_bytes()).await?;
            self.stream.flush().await?;
        }
        Ok(self.stream)
    }

    /// Turns the client away, with a reason where its version has a place for one.
    pub(super) async fn refuse(&mut self, reason: &str) -> Result<()> {
        if self.told == Told::Nothing {
            return Ok(());
        }
        let mut message = 1_u32.to_be_bytes().to_vec();
        if self.told == Told::ResultAndReason {
            message.extend((reason.len() as u32).to_be_bytes());
            message.extend(reason.as_bytes());
        }
        self.stream.write_all(&message).await?;
        self.stream.flush().await
    }
}

/// Comes in to a VNC server, as far as a client gets before its first own message.
pub(super) async fn come_in<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, password: Option<&str>) -> Result<()> {
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    if minor(&version)? < 8 {
        return Err(invalid("the VNC server is older than RFB 3.8"));
    }
    stream.write_all(VERSION).await?;
    stream.flush().await?;
    let count = stream.read_u8().await?;
    if count == 0 {
        return Err(Error::other(reason(stream).await?));
    }
    let mut kinds = vec![0; usize::from(count)];
    stream.read_exact(&mut kinds).await?;
    match password {
        _ if kinds.contains(&NONE) => stream.write_all(&[NONE]).await?,
        Some(password) if kinds.contains(&VNC_AUTHENTICATION) => {
            stream.write_all(&[VNC_AUTHENTICATION]).await?;
            stream.flush().await?;
            let mut challenge = [0; 16];
            stream.read_exact(&mut challenge).await?;
            stream.write_all(&answer(challenge, password)).await?;
        }
        _ => return Err(invalid("the VNC server asks for TLS, SASL or a password of its own")),
    }
    stream.flush().await?;
    match stream.read_u32().await? {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::PermissionDenied, reason(stream).await?)),
    }
}

/// The minor version, of the three that there are (7.1.1): whatever else says 3 is taken for 3.3, later ones for 3.8.
fn minor(version: &[u8; 12]) -> Result<u8> {
    let text = std::str::from_utf8(version).unwrap_or_default();
    let numbers = text.strip_prefix("RFB ").and_then(|text| text.strip_suffix('\n')?.split_once('.'));
    let (major, minor) = numbers.ok_or_else(|| invalid("no RFB"))?;
    match (major.parse::<u32>(), minor.parse::<u32>()) {
        (Ok(3), Ok(7)) => Ok(7),
        (Ok(3), Ok(..7)) => Ok(3),
        (Ok(3..), Ok(_)) => Ok(8),
        _ => Err(invalid("no version of RFB")),
    }
}

async fn reason<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String> {
    let length = stream.read_u32().await?.min(REASON_MAX);
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The answer to a challenge (7.2.2): DES by the password, whose bytes have their bits the other way round.
fn answer(mut challenge: [u8; 16], password: &str) -> [u8; 16] {
    let mut key = [0; 8];
    for (place, byte) in key.iter_mut().zip(password.bytes()) {
        *place = byte.reverse_bits();
    }
    let des = Des::new(&key.into());
    for block in challenge.chunks_exact_mut(8) {
        if let Ok(block) = block.try_into() {
            des.encrypt_block(block);
        }
    }
    challenge
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both of our sides against each other, by each version that a client may have.
    #[tokio::test]
    async fn both_sides_understand_each_other() {
        for (asked, given, comes_in) in [
            (None, None, true),
            (Some("abcdefgh"), Some("abcdefgh"), true),
            (Some("abcdefgh"), Some("abcdefgx"), false),
        ] {
            let (client, server) = tokio::io::duplex(256);
            let asked = asked.map_or(Security::None, Security::Password);
            let serving = async { greet(server, asked).await?.accept().await.map(|_| ()) };
            let coming = async {
                let mut client = client;
                come_in(&mut client, given).await
            };
            let (served, came) = tokio::join!(serving, coming);
            assert_eq!((served.is_ok(), came.is_ok()), (comes_in, comes_in));
            if let Err(error) = came {
                assert_eq!(error.to_string(), "the password is wrong");
            }
        }
    }

    #[tokio::test]
    async fn old_clients() {
        for version in [b"RFB 003.003\n", b"RFB 003.005\n", b"RFB 003.007\n"] {
            let (mut client, server) = tokio::io::duplex(256);
            let serving = tokio::spawn(async { greet(server, Security::Password("abcdefgh")).await?.accept().await });
            let mut hello = [0; 12];
            client.read_exact(&mut hello).await.unwrap();
            client.write_all(version).await.unwrap();
            if version[10] == b'7' {
                assert_eq!((client.read_u8().await.unwrap(), client.read_u8().await.unwrap()), (1, VNC_AUTHENTICATION));
                client.write_all(&[VNC_AUTHENTICATION]).await.unwrap();
            } else {
                assert_eq!(client.read_u32().await.unwrap(), 2);
            }
            let mut challenge = [0; 16];
            client.read_exact(&mut challenge).await.unwrap();
            client.write_all(&answer(challenge, "abcdefgh")).await.unwrap();
            assert_eq!(client.read_u32().await.unwrap(), 0);
            assert!(serving.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn nonsense_is_no_client() {
        let (mut client, server) = tokio::io::duplex(256);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(greet(server, Security::None).await.is_err());
    }

    /// What OpenSSL makes of zeroes by DES with the key "password", its bits turned round.
    #[test]
    fn the_answer_is_the_one_that_others_give() {
        let answer = answer([0; 16], "password");
        assert_eq!(answer[..8], answer[8..]);
        assert_eq!(answer[..8], [0xff, 0x97, 0x50, 0x2e, 0x94, 0x22, 0xf0, 0x89]);
    }
}
