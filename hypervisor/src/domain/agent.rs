//! What the guest agent is asked for, each with a deadline: an agent that falls silent in the middle of a call would hold it for
//! ever.

use crate::{Error, ErrorKind, Node, Result, node::SLOW};
use libvirt::{Domain, flags};
use uuid::Uuid;

/// How long a guest agent has to answer a question, in seconds.
pub(super) const ANSWER_S: i32 = 5;
/// How long it has for a change, which a busy guest may need a while for, in seconds.
const CHANGE_S: i32 = 30;
/// What agents say of a user that isn't there, by the commands for SSH keys.
const NO_USER: [&str; 2] = ["failed to lookup user", "failed to look up user"];

impl Node {
    /// Fails unless the agent of a running domain answers. It is asked for the guest's name: of a command of our own libvirt would
    /// note that the domain isn't as it was any more.
    pub async fn find_agent(&self, id: Uuid) -> Result<()> {
        let doing = format!("ask the guest agent of domain {id}");
        let asked = self.ask_domain(id, &doing, |domain| {
            with_deadline(domain, ANSWER_S, || domain.guest_info(flags::GUEST_INFO_HOSTNAME)).map(|_| ())
        });
        match asked.await {
            Err(error) if error.kind == ErrorKind::AgentRefused => Ok(()),
            asked => asked,
        }
    }

    /// Sets a guest user's password, given as its crypt(3) hash.
    pub async fn set_password(&self, id: Uuid, user: &str, hash: &str) -> Result<()> {
        let (user, hash) = (user.to_owned(), hash.to_owned());
        let doing = format!("set the password of user {user} in the guest of domain {id}");
        self.change_domain(id, SLOW, &doing, move |domain| {
            with_deadline(domain, CHANGE_S, || domain.set_user_password(&user, &hash, flags::PASSWORD_ENCRYPTED))
        })
        .await
    }

    /// Replaces a guest user's authorised SSH keys.
    pub async fn set_ssh_keys(&self, id: Uuid, user: &str, keys: &[String]) -> Result<()> {
        let (user, keys) = (user.to_owned(), keys.to_vec());
        let doing = format!("set the SSH keys of user {user} in the guest of domain {id}");
        self.change_domain(id, SLOW, &doing, move |domain| {
            with_deadline(domain, CHANGE_S, || domain.set_authorized_keys(&user, &keys, 0))
        })
        .await
    }

    /// A guest user's authorised SSH keys.
    pub async fn ssh_keys(&self, id: Uuid, user: &str) -> Result<Vec<String>> {
        let doing = format!("read the SSH keys of user {user} in the guest of domain {id}");
        let user = user.to_owned();
        self.ask_domain(id, &doing, move |domain| with_deadline(domain, ANSWER_S, || domain.authorized_keys(&user)))
            .await
    }

    /// Whether the guest has a user of this name; `None` where its agent doesn't say.
    pub async fn has_guest_user(&self, id: Uuid, user: &str) -> Result<Option<bool>> {
        match self.ssh_keys(id, user).await {
            Ok(_) => Ok(Some(true)),
            Err(error) if is_no_user(&error) => Ok(Some(false)),
            // It is there, and its file of keys isn't.
            Err(error) if error.kind == ErrorKind::AgentRefused && error.cause.contains("authorized_keys") => {
                Ok(Some(true))
            }
            Err(error) if error.kind == ErrorKind::AgentRefused => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an agent refused because there is no such user.
pub fn is_no_user(error: &Error) -> bool {
    error.kind == ErrorKind::AgentRefused && NO_USER.iter().any(|text| error.cause.contains(text))
}

/// Calls libvirt's own agent functions with this deadline, and leaves the shorter one to the next call.
pub(super) fn with_deadline<T>(
    domain: &Domain,
    seconds: i32,
    f: impl FnOnce() -> libvirt::Result<T>,
) -> libvirt::Result<T> {
    domain.agent_set_response_timeout(seconds)?;
    let done = f();
    if seconds != ANSWER_S {
        // The domain may have gone meanwhile.
        let _ = domain.agent_set_response_timeout(ANSWER_S);
    }
    done
}
