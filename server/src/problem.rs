//! Errors on the wire: the one place that knows HTTP's statuses (RFC 9110) and problem details (RFC 9457).

use crate::Error;
use api::{Code, Problem};
use hypervisor::ErrorKind;
use uuid::Uuid;

/// The HTTP status of a code.
pub fn status(code: Code) -> u16 {
    match code {
        Code::Invalid => 400,
        Code::Unauthenticated => 401,
        Code::Forbidden => 403,
        Code::NotFound => 404,
        Code::AlreadyExists
        | Code::WrongState
        | Code::Busy
        | Code::InUse
        | Code::Ambiguous
        | Code::NoCapacity
        | Code::AgentUnavailable
        | Code::TokenReused => 409,
        Code::TooLarge => 413,
        Code::Unsupported => 422,
        Code::RateLimited => 429,
        Code::Internal => 500,
        Code::NodeUnavailable => 503,
        Code::Timeout => 504,
    }
}

/// An error as the client sees it. The cause of an internal one goes to the log only.
pub fn to_wire(error: &Error, request_id: Option<Uuid>, task: Option<Uuid>) -> Problem {
    let code = code(error);
    let (detail, errors) = match error {
        Error::Internal(cause) => {
            tracing::error!(request_id = request_id.map(tracing::field::display), cause, "internal error");
            (
                "something went wrong in Vmyard itself; the cause is in the server's log under the request id"
                    .to_owned(),
                Vec::new(),
            )
        }
        Error::Database { cause, .. } => {
            tracing::error!(request_id = request_id.map(tracing::field::display), cause, "the database can't be used");
            (error.to_string(), Vec::new())
        }
        Error::History { cause, .. } => {
            tracing::error!(request_id = request_id.map(tracing::field::display), cause, "the history of metrics");
            (error.to_string(), Vec::new())
        }
        Error::Invalid(fields) => {
            let text = |field: &api::FieldError| match field.field.as_str() {
                "" => field.message.clone(),
                name => format!("{name}: {}", field.message),
            };
            let texts: Vec<_> = fields.iter().map(text).collect();
            (format!("the request is not valid: {}", texts.join("; ")), fields.clone())
        }
        other => (other.to_string(), Vec::new()),
    };
    let holder = match error {
        Error::Busy { task, .. } => *task,
        _ => None,
    };
    Problem {
        kind: format!("urn:vmyard:error:{}", code.as_str()),
        title: code.as_str().replace('_', " "),
        status: status(code),
        detail,
        code,
        request_id,
        hint: hint(error),
        errors,
        task: holder.or(task),
    }
}

/// An error's code.
pub fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) => Code::Invalid,
        Error::Unauthenticated(_) | Error::Expired { .. } => Code::Unauthenticated,
        Error::Forbidden { .. } | Error::ForeignOrigin { .. } => Code::Forbidden,
        Error::RateLimited { .. } => Code::RateLimited,
        Error::NotFound { .. } | Error::NotFoundOn { .. } | Error::NoSuchMethod(_) => Code::NotFound,
        Error::AlreadyExists { .. } => Code::AlreadyExists,
        Error::WrongState { .. } | Error::Superseded(_) | Error::Cancelled => Code::WrongState,
        Error::Busy { .. } => Code::Busy,
        Error::InUse(_) => Code::InUse,
        Error::Ambiguous { .. } => Code::Ambiguous,
        Error::NoNode { why, .. } => self::code(why),
        Error::NoCapacity(_) => Code::NoCapacity,
        Error::TokenReused(_) => Code::TokenReused,
        Error::TooLarge(_) => Code::TooLarge,
        Error::Unsupported { .. } => Code::Unsupported,
        // The server as a whole, rather than one of its nodes.
        Error::ShuttingDown | Error::Interrupted | Error::Database { .. } | Error::History { .. } => {
            Code::NodeUnavailable
        }
        Error::Timeout { .. } => Code::Timeout,
        Error::AgentUnavailable { .. } => Code::AgentUnavailable,
        Error::Internal(_) => Code::Internal,
        Error::Node(error) | Error::NotAdded(error) => match error.kind {
            ErrorKind::Unavailable => Code::NodeUnavailable,
            ErrorKind::Timeout => Code::Timeout,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Exists => Code::AlreadyExists,
            ErrorKind::WrongState => Code::WrongState,
            ErrorKind::Busy => Code::Busy,
            ErrorKind::NoSpace => Code::NoCapacity,
            ErrorKind::Agent => Code::AgentUnavailable,
            // What QEMU or libvirt refuse is no bug of ours: the node can't do it as it is.
            ErrorKind::Unsupported | ErrorKind::Refused | ErrorKind::AgentRefused | ErrorKind::Failed => {
                Code::Unsupported
            }
        },
    }
}

fn hint(error: &Error) -> Option<String> {
    let text = match error {
        Error::NoNode { why, .. } => return hint(why),
        Error::WrongState { hint, .. } | Error::Unsupported { hint, .. } => return hint.clone(),
        Error::Timeout { hint, .. } | Error::AgentUnavailable { hint, .. } => hint,
        Error::Unauthenticated(_) => {
            "send 'Authorization: Bearer TOKEN'; the administrator's token is in admin.token in the data directory"
        }
        Error::Expired { what: "session", .. } => "sign in again (sign-in)",
        Error::Expired { .. } => "an administrator can make a new one (create-token)",
        Error::ForeignOrigin { .. } => {
            "call from a page of this server (a proxy before it must pass the Host header on), or send 'Authorization: \
             Bearer TOKEN' instead of the cookie"
        }
        Error::RateLimited { wait_s } => return Some(format!("try again in {wait_s} s")),
        Error::Forbidden { .. } => "call under a token of that role; an administrator can make one (create-token)",
        Error::NoSuchMethod(_) => "GET /api/openapi.json lists the methods; each is called by POST /api/METHOD",
        Error::Ambiguous { .. } => "use one of the ids",
        Error::TokenReused(_) => "use a new token for a new request, and the old one only to repeat the old request",
        Error::Busy { task: Some(_), .. } => "wait for that task (describe-task), then call again",
        Error::NoCapacity(_) => "stop a VM, ask for less, or use another node (list-nodes shows what is free)",
        Error::Database { .. } => {
            "nothing was begun; the server's log says more, and GET /readyz whether it is usable again"
        }
        Error::History { .. } => "VMs and all other methods do without it; the server's log says more",
        Error::NotAdded(_) => {
            "try 'virsh -c URI list' as the user that the server runs as; for ssh that user needs a key and the host in \
             its known_hosts"
        }
        Error::ShuttingDown => "call again when the server is back",
        Error::Interrupted => "look at the object, then call again",
        Error::Node(error) => match error.kind {
            ErrorKind::Unavailable => "describe-node says why the node can't be reached; the server goes on trying",
            ErrorKind::Timeout => "the node is slow or hangs; look at the object before you call again",
            ErrorKind::NoSpace => "free space in the pool (list-storage-pools shows what is left)",
            _ => return None,
        },
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_cause_stays_inside() {
        let problem = to_wire(&Error::Internal("password hunter2 in SQL".into()), None, None);
        assert_eq!((problem.status, problem.code), (500, Code::Internal));
        assert!(!serde_json::to_string(&problem).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_field_is_named() {
        let problem = to_wire(&Error::field("networks[1].mac", "must be unicast"), None, None);
        assert_eq!(problem.status, 400);
        assert_eq!(problem.errors[0].field, "networks[1].mac");
        assert!(problem.detail.contains("networks[1].mac"));
    }
}
