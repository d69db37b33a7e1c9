//! What kind of failure an error is.

use virt_sys as sys;

/// The kind of an [`Error`](crate::Error): libvirt's `virErrorNumber`. Numbers that have no name here may come from
/// newer libraries; they compare and print all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// Not libvirt's: a non-blocking stream could neither read nor write now.
    pub const WOULD_BLOCK: Self = Self(u32::MAX);

    /// Ok (`VIR_ERR_OK`).
    pub const OK: Self = Self(sys::VIR_ERR_OK);
    /// Internal error (`VIR_ERR_INTERNAL_ERROR`).
    pub const INTERNAL_ERROR: Self = Self(sys::VIR_ERR_INTERNAL_ERROR);
    /// Memory allocation failure (`VIR_ERR_NO_MEMORY`).
    pub const NO_MEMORY: Self = Self(sys::VIR_ERR_NO_MEMORY);
    /// No support for this function (`VIR_ERR_NO_SUPPORT`).
    pub const NO_SUPPORT: Self = Self(sys::VIR_ERR_NO_SUPPORT);
    /// Could not resolve hostname (`VIR_ERR_UNKNOWN_HOST`).
    pub const UNKNOWN_HOST: Self = Self(sys::VIR_ERR_UNKNOWN_HOST);
    /// Can't connect to hypervisor (`VIR_ERR_NO_CONNECT`).
    pub const NO_CONNECT: Self = Self(sys::VIR_ERR_NO_CONNECT);
    /// Invalid connection object (`VIR_ERR_INVALID_CONN`).
    pub const INVALID_CONN: Self = Self(sys::VIR_ERR_INVALID_CONN);
    /// Invalid domain object (`VIR_ERR_INVALID_DOMAIN`).
    pub const INVALID_DOMAIN: Self = Self(sys::VIR_ERR_INVALID_DOMAIN);
    /// Invalid function argument (`VIR_ERR_INVALID_ARG`).
    pub const INVALID_ARG: Self = Self(sys::VIR_ERR_INVALID_ARG);
    /// A command to hypervisor failed (`VIR_ERR_OPERATION_FAILED`).
    pub const OPERATION_FAILED: Self = Self(sys::VIR_ERR_OPERATION_FAILED);
    /// A HTTP GET command to failed (`VIR_ERR_GET_FAILED`).
    pub const GET_FAILED: Self = Self(sys::VIR_ERR_GET_FAILED);
    /// A HTTP POST command to failed (`VIR_ERR_POST_FAILED`).
    pub const POST_FAILED: Self = Self(sys::VIR_ERR_POST_FAILED);
    /// Unknown OS type (`VIR_ERR_OS_TYPE`).
    pub const OS_TYPE: Self = Self(sys::VIR_ERR_OS_TYPE);
    /// Missing source device information (`VIR_ERR_NO_SOURCE`).
    pub const NO_SOURCE: Self = Self(sys::VIR_ERR_NO_SOURCE);
    /// Missing target device information (`VIR_ERR_NO_TARGET`).
    pub const NO_TARGET: Self = Self(sys::VIR_ERR_NO_TARGET);
    /// Missing domain name information (`VIR_ERR_NO_NAME`).
    pub const NO_NAME: Self = Self(sys::VIR_ERR_NO_NAME);
    /// Missing domain OS information (`VIR_ERR_NO_OS`).
    pub const NO_OS: Self = Self(sys::VIR_ERR_NO_OS);
    /// Missing domain devices information (`VIR_ERR_NO_DEVICE`).
    pub const NO_DEVICE: Self = Self(sys::VIR_ERR_NO_DEVICE);
    /// Not supported by the drivers (DEPRECATED) (`VIR_ERR_CALL_FAILED`).
    pub const CALL_FAILED: Self = Self(sys::VIR_ERR_CALL_FAILED);
    /// An XML description is not well formed or broken (`VIR_ERR_XML_ERROR`).
    pub const XML_ERROR: Self = Self(sys::VIR_ERR_XML_ERROR);
    /// The domain already exist (`VIR_ERR_DOM_EXIST`).
    pub const DOM_EXIST: Self = Self(sys::VIR_ERR_DOM_EXIST);
    /// Operation forbidden on read-only connections (`VIR_ERR_OPERATION_DENIED`).
    pub const OPERATION_DENIED: Self = Self(sys::VIR_ERR_OPERATION_DENIED);
    /// Failed to open a conf file (`VIR_ERR_OPEN_FAILED`).
    pub const OPEN_FAILED: Self = Self(sys::VIR_ERR_OPEN_FAILED);
    /// Failed to read a conf file (`VIR_ERR_READ_FAILED`).
    pub const READ_FAILED: Self = Self(sys::VIR_ERR_READ_FAILED);
    /// Failed to parse a conf file (`VIR_ERR_PARSE_FAILED`).
    pub const PARSE_FAILED: Self = Self(sys::VIR_ERR_PARSE_FAILED);
    /// Failed to parse the syntax of a conf file (`VIR_ERR_CONF_SYNTAX`).
    pub const CONF_SYNTAX: Self = Self(sys::VIR_ERR_CONF_SYNTAX);
    /// Failed to write a conf file (`VIR_ERR_WRITE_FAILED`).
    pub const WRITE_FAILED: Self = Self(sys::VIR_ERR_WRITE_FAILED);
    /// Detail of an XML error (`VIR_ERR_XML_DETAIL`).
    pub const XML_DETAIL: Self = Self(sys::VIR_ERR_XML_DETAIL);
    /// Invalid network object (`VIR_ERR_INVALID_NETWORK`).
    pub const INVALID_NETWORK: Self = Self(sys::VIR_ERR_INVALID_NETWORK);
    /// The network already exist (`VIR_ERR_NETWORK_EXIST`).
    pub const NETWORK_EXIST: Self = Self(sys::VIR_ERR_NETWORK_EXIST);
    /// General system call failure (`VIR_ERR_SYSTEM_ERROR`).
    pub const SYSTEM_ERROR: Self = Self(sys::VIR_ERR_SYSTEM_ERROR);
    /// Some sort of RPC error (`VIR_ERR_RPC`).
    pub const RPC: Self = Self(sys::VIR_ERR_RPC);
    /// Error from a GNUTLS call (`VIR_ERR_GNUTLS_ERROR`).
    pub const GNUTLS_ERROR: Self = Self(sys::VIR_ERR_GNUTLS_ERROR);
    /// Domain not found or unexpectedly disappeared (`VIR_ERR_NO_DOMAIN`).
    pub const NO_DOMAIN: Self = Self(sys::VIR_ERR_NO_DOMAIN);
    /// Network not found (`VIR_ERR_NO_NETWORK`).
    pub const NO_NETWORK: Self = Self(sys::VIR_ERR_NO_NETWORK);
    /// Invalid MAC address (`VIR_ERR_INVALID_MAC`).
    pub const INVALID_MAC: Self = Self(sys::VIR_ERR_INVALID_MAC);
    /// Authentication failed (`VIR_ERR_AUTH_FAILED`).
    pub const AUTH_FAILED: Self = Self(sys::VIR_ERR_AUTH_FAILED);
    /// Invalid storage pool object (`VIR_ERR_INVALID_STORAGE_POOL`).
    pub const INVALID_STORAGE_POOL: Self = Self(sys::VIR_ERR_INVALID_STORAGE_POOL);
    /// Invalid storage vol object (`VIR_ERR_INVALID_STORAGE_VOL`).
    pub const INVALID_STORAGE_VOL: Self = Self(sys::VIR_ERR_INVALID_STORAGE_VOL);
    /// Storage pool not found (`VIR_ERR_NO_STORAGE_POOL`).
    pub const NO_STORAGE_POOL: Self = Self(sys::VIR_ERR_NO_STORAGE_POOL);
    /// Storage volume not found (`VIR_ERR_NO_STORAGE_VOL`).
    pub const NO_STORAGE_VOL: Self = Self(sys::VIR_ERR_NO_STORAGE_VOL);
    /// Invalid node device object (`VIR_ERR_INVALID_NODE_DEVICE`).
    pub const INVALID_NODE_DEVICE: Self = Self(sys::VIR_ERR_INVALID_NODE_DEVICE);
    /// Node device not found (`VIR_ERR_NO_NODE_DEVICE`).
    pub const NO_NODE_DEVICE: Self = Self(sys::VIR_ERR_NO_NODE_DEVICE);
    /// Security model not found (`VIR_ERR_NO_SECURITY_MODEL`).
    pub const NO_SECURITY_MODEL: Self = Self(sys::VIR_ERR_NO_SECURITY_MODEL);
    /// Operation is not applicable at this time (`VIR_ERR_OPERATION_INVALID`).
    pub const OPERATION_INVALID: Self = Self(sys::VIR_ERR_OPERATION_INVALID);
    /// Interface driver not running (`VIR_ERR_NO_INTERFACE`).
    pub const NO_INTERFACE: Self = Self(sys::VIR_ERR_NO_INTERFACE);
    /// Invalid interface object (`VIR_ERR_INVALID_INTERFACE`).
    pub const INVALID_INTERFACE: Self = Self(sys::VIR_ERR_INVALID_INTERFACE);
    /// More than one matching interface found (`VIR_ERR_MULTIPLE_INTERFACES`).
    pub const MULTIPLE_INTERFACES: Self = Self(sys::VIR_ERR_MULTIPLE_INTERFACES);
    /// Invalid nwfilter object (`VIR_ERR_INVALID_NWFILTER`).
    pub const INVALID_NWFILTER: Self = Self(sys::VIR_ERR_INVALID_NWFILTER);
    /// Nw filter pool not found (`VIR_ERR_NO_NWFILTER`).
    pub const NO_NWFILTER: Self = Self(sys::VIR_ERR_NO_NWFILTER);
    /// Nw filter pool not found (`VIR_ERR_BUILD_FIREWALL`).
    pub const BUILD_FIREWALL: Self = Self(sys::VIR_ERR_BUILD_FIREWALL);
    /// Invalid secret (`VIR_ERR_INVALID_SECRET`).
    pub const INVALID_SECRET: Self = Self(sys::VIR_ERR_INVALID_SECRET);
    /// Secret not found (`VIR_ERR_NO_SECRET`).
    pub const NO_SECRET: Self = Self(sys::VIR_ERR_NO_SECRET);
    /// Unsupported configuration construct (`VIR_ERR_CONFIG_UNSUPPORTED`).
    pub const CONFIG_UNSUPPORTED: Self = Self(sys::VIR_ERR_CONFIG_UNSUPPORTED);
    /// Timeout occurred during operation (`VIR_ERR_OPERATION_TIMEOUT`).
    pub const OPERATION_TIMEOUT: Self = Self(sys::VIR_ERR_OPERATION_TIMEOUT);
    /// A migration worked, but making the VM persist on the dest host failed (`VIR_ERR_MIGRATE_PERSIST_FAILED`).
    pub const MIGRATE_PERSIST_FAILED: Self = Self(sys::VIR_ERR_MIGRATE_PERSIST_FAILED);
    /// A synchronous hook script failed (`VIR_ERR_HOOK_SCRIPT_FAILED`).
    pub const HOOK_SCRIPT_FAILED: Self = Self(sys::VIR_ERR_HOOK_SCRIPT_FAILED);
    /// Invalid domain snapshot (`VIR_ERR_INVALID_DOMAIN_SNAPSHOT`).
    pub const INVALID_DOMAIN_SNAPSHOT: Self = Self(sys::VIR_ERR_INVALID_DOMAIN_SNAPSHOT);
    /// Domain snapshot not found (`VIR_ERR_NO_DOMAIN_SNAPSHOT`).
    pub const NO_DOMAIN_SNAPSHOT: Self = Self(sys::VIR_ERR_NO_DOMAIN_SNAPSHOT);
    /// Stream pointer not valid (`VIR_ERR_INVALID_STREAM`).
    pub const INVALID_STREAM: Self = Self(sys::VIR_ERR_INVALID_STREAM);
    /// Valid API use but unsupported by the given driver (`VIR_ERR_ARGUMENT_UNSUPPORTED`).
    pub const ARGUMENT_UNSUPPORTED: Self = Self(sys::VIR_ERR_ARGUMENT_UNSUPPORTED);
    /// Storage pool probe failed (`VIR_ERR_STORAGE_PROBE_FAILED`).
    pub const STORAGE_PROBE_FAILED: Self = Self(sys::VIR_ERR_STORAGE_PROBE_FAILED);
    /// Storage pool already built (`VIR_ERR_STORAGE_POOL_BUILT`).
    pub const STORAGE_POOL_BUILT: Self = Self(sys::VIR_ERR_STORAGE_POOL_BUILT);
    /// Force was not requested for a risky domain snapshot revert (`VIR_ERR_SNAPSHOT_REVERT_RISKY`).
    pub const SNAPSHOT_REVERT_RISKY: Self = Self(sys::VIR_ERR_SNAPSHOT_REVERT_RISKY);
    /// Operation on a domain was canceled/aborted by user (`VIR_ERR_OPERATION_ABORTED`).
    pub const OPERATION_ABORTED: Self = Self(sys::VIR_ERR_OPERATION_ABORTED);
    /// Authentication cancelled (`VIR_ERR_AUTH_CANCELLED`).
    pub const AUTH_CANCELLED: Self = Self(sys::VIR_ERR_AUTH_CANCELLED);
    /// The metadata is not present (`VIR_ERR_NO_DOMAIN_METADATA`).
    pub const NO_DOMAIN_METADATA: Self = Self(sys::VIR_ERR_NO_DOMAIN_METADATA);
    /// Migration is not safe (`VIR_ERR_MIGRATE_UNSAFE`).
    pub const MIGRATE_UNSAFE: Self = Self(sys::VIR_ERR_MIGRATE_UNSAFE);
    /// Integer overflow (`VIR_ERR_OVERFLOW`).
    pub const OVERFLOW: Self = Self(sys::VIR_ERR_OVERFLOW);
    /// Action prevented by block copy job (`VIR_ERR_BLOCK_COPY_ACTIVE`).
    pub const BLOCK_COPY_ACTIVE: Self = Self(sys::VIR_ERR_BLOCK_COPY_ACTIVE);
    /// The requested operation is not supported (`VIR_ERR_OPERATION_UNSUPPORTED`).
    pub const OPERATION_UNSUPPORTED: Self = Self(sys::VIR_ERR_OPERATION_UNSUPPORTED);
    /// Error in ssh transport driver (`VIR_ERR_SSH`).
    pub const SSH: Self = Self(sys::VIR_ERR_SSH);
    /// Guest agent is unresponsive, not running or not usable (`VIR_ERR_AGENT_UNRESPONSIVE`).
    pub const AGENT_UNRESPONSIVE: Self = Self(sys::VIR_ERR_AGENT_UNRESPONSIVE);
    /// Resource is already in use (`VIR_ERR_RESOURCE_BUSY`).
    pub const RESOURCE_BUSY: Self = Self(sys::VIR_ERR_RESOURCE_BUSY);
    /// Operation on the object/resource was denied (`VIR_ERR_ACCESS_DENIED`).
    pub const ACCESS_DENIED: Self = Self(sys::VIR_ERR_ACCESS_DENIED);
    /// Error from a dbus service (`VIR_ERR_DBUS_SERVICE`).
    pub const DBUS_SERVICE: Self = Self(sys::VIR_ERR_DBUS_SERVICE);
    /// The storage vol already exists (`VIR_ERR_STORAGE_VOL_EXIST`).
    pub const STORAGE_VOL_EXIST: Self = Self(sys::VIR_ERR_STORAGE_VOL_EXIST);
    /// Given CPU is incompatible with host CPU (`VIR_ERR_CPU_INCOMPATIBLE`).
    pub const CPU_INCOMPATIBLE: Self = Self(sys::VIR_ERR_CPU_INCOMPATIBLE);
    /// XML document doesn't validate against schema (`VIR_ERR_XML_INVALID_SCHEMA`).
    pub const XML_INVALID_SCHEMA: Self = Self(sys::VIR_ERR_XML_INVALID_SCHEMA);
    /// Finish API succeeded but it is expected to return NULL (`VIR_ERR_MIGRATE_FINISH_OK`).
    pub const MIGRATE_FINISH_OK: Self = Self(sys::VIR_ERR_MIGRATE_FINISH_OK);
    /// Authentication unavailable (`VIR_ERR_AUTH_UNAVAILABLE`).
    pub const AUTH_UNAVAILABLE: Self = Self(sys::VIR_ERR_AUTH_UNAVAILABLE);
    /// Server was not found (`VIR_ERR_NO_SERVER`).
    pub const NO_SERVER: Self = Self(sys::VIR_ERR_NO_SERVER);
    /// Client was not found (`VIR_ERR_NO_CLIENT`).
    pub const NO_CLIENT: Self = Self(sys::VIR_ERR_NO_CLIENT);
    /// Guest agent replies with wrong id to guest-sync command (DEPRECATED) (`VIR_ERR_AGENT_UNSYNCED`).
    pub const AGENT_UNSYNCED: Self = Self(sys::VIR_ERR_AGENT_UNSYNCED);
    /// Error in libssh transport driver (`VIR_ERR_LIBSSH`).
    pub const LIBSSH: Self = Self(sys::VIR_ERR_LIBSSH);
    /// Fail to find the desired device (`VIR_ERR_DEVICE_MISSING`).
    pub const DEVICE_MISSING: Self = Self(sys::VIR_ERR_DEVICE_MISSING);
    /// Invalid nwfilter binding (`VIR_ERR_INVALID_NWFILTER_BINDING`).
    pub const INVALID_NWFILTER_BINDING: Self = Self(sys::VIR_ERR_INVALID_NWFILTER_BINDING);
    /// No nwfilter binding (`VIR_ERR_NO_NWFILTER_BINDING`).
    pub const NO_NWFILTER_BINDING: Self = Self(sys::VIR_ERR_NO_NWFILTER_BINDING);
    /// Invalid domain checkpoint (`VIR_ERR_INVALID_DOMAIN_CHECKPOINT`).
    pub const INVALID_DOMAIN_CHECKPOINT: Self = Self(sys::VIR_ERR_INVALID_DOMAIN_CHECKPOINT);
    /// Domain checkpoint not found (`VIR_ERR_NO_DOMAIN_CHECKPOINT`).
    pub const NO_DOMAIN_CHECKPOINT: Self = Self(sys::VIR_ERR_NO_DOMAIN_CHECKPOINT);
    /// Domain backup job id not found (`VIR_ERR_NO_DOMAIN_BACKUP`).
    pub const NO_DOMAIN_BACKUP: Self = Self(sys::VIR_ERR_NO_DOMAIN_BACKUP);
    /// Invalid network port object (`VIR_ERR_INVALID_NETWORK_PORT`).
    pub const INVALID_NETWORK_PORT: Self = Self(sys::VIR_ERR_INVALID_NETWORK_PORT);
    /// The network port already exist (`VIR_ERR_NETWORK_PORT_EXIST`).
    pub const NETWORK_PORT_EXIST: Self = Self(sys::VIR_ERR_NETWORK_PORT_EXIST);
    /// Network port not found (`VIR_ERR_NO_NETWORK_PORT`).
    pub const NO_NETWORK_PORT: Self = Self(sys::VIR_ERR_NO_NETWORK_PORT);
    /// No domain's hostname found (`VIR_ERR_NO_HOSTNAME`).
    pub const NO_HOSTNAME: Self = Self(sys::VIR_ERR_NO_HOSTNAME);
    /// Checkpoint can't be used (`VIR_ERR_CHECKPOINT_INCONSISTENT`).
    pub const CHECKPOINT_INCONSISTENT: Self = Self(sys::VIR_ERR_CHECKPOINT_INCONSISTENT);
    /// More than one matching domain found (`VIR_ERR_MULTIPLE_DOMAINS`).
    pub const MULTIPLE_DOMAINS: Self = Self(sys::VIR_ERR_MULTIPLE_DOMAINS);
    /// No network metadata (`VIR_ERR_NO_NETWORK_METADATA`).
    pub const NO_NETWORK_METADATA: Self = Self(sys::VIR_ERR_NO_NETWORK_METADATA);
    /// Agent command timeout (`VIR_ERR_AGENT_COMMAND_TIMEOUT`).
    pub const AGENT_COMMAND_TIMEOUT: Self = Self(sys::VIR_ERR_AGENT_COMMAND_TIMEOUT);
    /// Agent command failed (`VIR_ERR_AGENT_COMMAND_FAILED`).
    pub const AGENT_COMMAND_FAILED: Self = Self(sys::VIR_ERR_AGENT_COMMAND_FAILED);
}
