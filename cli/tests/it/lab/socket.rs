//! A WebSocket client.

use super::SOON;
use std::{
    net::TcpStream,
    time::{Duration, Instant},
};
use tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    http::{HeaderName, HeaderValue},
};

/// A connection to a console.
pub struct Socket {
    pub socket: WebSocket<TcpStream>,
    /// All bytes that came in binary messages.
    pub bytes: Vec<u8>,
    /// All text messages.
    pub notes: Vec<String>,
    /// The reason of the close frame, once there is one.
    pub closed: Option<String>,
}

impl Socket {
    /// Connects; fails with the status and the body of what the server answers instead.
    pub fn open(url: &str) -> Result<Socket, (u16, String)> {
        Socket::open_with(url, &[])
    }

    /// The same with more headers.
    pub fn open_with(url: &str, headers: &[(&'static str, &str)]) -> Result<Socket, (u16, String)> {
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let uri = request.uri();
        let stream = TcpStream::connect((uri.host().unwrap(), uri.port_u16().unwrap())).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Socket { socket, bytes: Vec::new(), notes: Vec::new(), closed: None }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(error) => panic!("{url}: {error}"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).unwrap();
    }

    pub fn note(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).unwrap();
    }

    /// Comes in to a screen as noVNC does, up to where the server says whether it may: four bytes. No password is asked for.
    #[track_caller]
    pub fn greet_rfb(&mut self) -> Vec<u8> {
        assert_eq!(self.take(12), b"RFB 003.008\n");
        self.send(b"RFB 003.008\n");
        // One security type: none.
        assert_eq!(self.take(2), [1, 1]);
        self.send(&[1]);
        self.take(4)
    }

    /// Takes in what there is, waiting for at most so long for the first of it; returns whether something came.
    pub fn receive(&mut self, wait: Duration) -> bool {
        if self.closed.is_some() {
            return false;
        }
        self.socket.get_ref().set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.bytes.extend_from_slice(&bytes),
            Ok(Message::Text(text)) => self.notes.push(text.to_string()),
            Ok(Message::Close(frame)) => {
                self.closed = Some(frame.map(|frame| frame.reason.to_string()).unwrap_or_default());
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return false;
            }
            Err(error) => self.closed = Some(error.to_string()),
        }
        true
    }

    /// Takes in until the condition holds.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, deadline: Duration, mut check: impl FnMut(&mut Socket) -> Option<T>) -> T {
        let end = Instant::now() + deadline;
        loop {
            if let Some(value) = check(self) {
                return value;
            }
            let said = String::from_utf8_lossy(&self.bytes[self.bytes.len().saturating_sub(500)..]).into_owned();
            assert!(
                Instant::now() < end,
                "not within {deadline:?}: {what}; {said:?} {:?} {:?}",
                self.notes,
                self.closed
            );
            self.receive(Duration::from_millis(200));
        }
    }

    /// Waits for a text among the bytes, and forgets all up to its end.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        self.until(&format!("it says {text:?}"), Duration::from_secs(100), |socket| {
            let at = socket.bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
            socket.bytes.drain(..at + text.len());
            Some(())
        });
    }

    /// Waits for so many bytes, and takes them out.
    #[track_caller]
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        self.until(&format!("{length} bytes"), SOON, |socket| {
            (socket.bytes.len() >= length).then(|| socket.bytes.drain(..length).collect())
        })
    }

    /// Waits for the end, and says why it came.
    #[track_caller]
    pub fn end(&mut self, deadline: Duration) -> String {
        self.until("the session ends", deadline, |socket| socket.closed.clone())
    }
}
