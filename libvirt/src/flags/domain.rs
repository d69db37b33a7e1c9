//! Flags of calls on domains.

use virt_sys as sys;

/// The running domain if it is on, else the definition (`VIR_DOMAIN_AFFECT_CURRENT`).
pub const AFFECT_CURRENT: u32 = sys::VIR_DOMAIN_AFFECT_CURRENT;
/// The running domain (`VIR_DOMAIN_AFFECT_LIVE`).
pub const AFFECT_LIVE: u32 = sys::VIR_DOMAIN_AFFECT_LIVE;
/// The definition, from the next start on (`VIR_DOMAIN_AFFECT_CONFIG`).
pub const AFFECT_CONFIG: u32 = sys::VIR_DOMAIN_AFFECT_CONFIG;
/// With passwords (`VIR_DOMAIN_XML_SECURE`).
pub const XML_SECURE: u32 = sys::VIR_DOMAIN_XML_SECURE;
/// The definition for the next start, not the running domain (`VIR_DOMAIN_XML_INACTIVE`).
pub const XML_INACTIVE: u32 = sys::VIR_DOMAIN_XML_INACTIVE;
/// XML fit for another node (`VIR_DOMAIN_XML_MIGRATABLE`).
pub const XML_MIGRATABLE: u32 = sys::VIR_DOMAIN_XML_MIGRATABLE;
/// Check the XML against libvirt's schema (`VIR_DOMAIN_DEFINE_VALIDATE`).
pub const DEFINE_VALIDATE: u32 = sys::VIR_DOMAIN_DEFINE_VALIDATE;
/// Delete the managed-save image as well (`VIR_DOMAIN_UNDEFINE_MANAGED_SAVE`).
pub const UNDEFINE_MANAGED_SAVE: u32 = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE;
/// Forget snapshots as well (`VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA`).
pub const UNDEFINE_SNAPSHOTS_METADATA: u32 = sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
/// Forget checkpoints as well (`VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA`).
pub const UNDEFINE_CHECKPOINTS_METADATA: u32 = sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
/// Delete the NVRAM file as well (`VIR_DOMAIN_UNDEFINE_NVRAM`).
pub const UNDEFINE_NVRAM: u32 = sys::VIR_DOMAIN_UNDEFINE_NVRAM;
/// Keep the NVRAM file (`VIR_DOMAIN_UNDEFINE_KEEP_NVRAM`).
pub const UNDEFINE_KEEP_NVRAM: u32 = sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM;
/// Delete the TPM's state as well; libvirt 8.9 (`VIR_DOMAIN_UNDEFINE_TPM`).
pub const UNDEFINE_TPM: u32 = sys::VIR_DOMAIN_UNDEFINE_TPM;
/// Keep the TPM's state; libvirt 8.9 (`VIR_DOMAIN_UNDEFINE_KEEP_TPM`).
pub const UNDEFINE_KEEP_TPM: u32 = sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM;
/// Start it suspended (`VIR_DOMAIN_START_PAUSED`).
pub const START_PAUSED: u32 = sys::VIR_DOMAIN_START_PAUSED;
/// Switch it off when the connection ends (`VIR_DOMAIN_START_AUTODESTROY`).
pub const START_AUTODESTROY: u32 = sys::VIR_DOMAIN_START_AUTODESTROY;
/// Read the managed-save image without the page cache (`VIR_DOMAIN_START_BYPASS_CACHE`).
pub const START_BYPASS_CACHE: u32 = sys::VIR_DOMAIN_START_BYPASS_CACHE;
/// Delete a managed-save image and boot (`VIR_DOMAIN_START_FORCE_BOOT`).
pub const START_FORCE_BOOT: u32 = sys::VIR_DOMAIN_START_FORCE_BOOT;
/// Check the XML against libvirt's schema (`VIR_DOMAIN_START_VALIDATE`).
pub const START_VALIDATE: u32 = sys::VIR_DOMAIN_START_VALIDATE;
/// Make the NVRAM anew from its template; libvirt 8.1 (`VIR_DOMAIN_START_RESET_NVRAM`).
pub const START_RESET_NVRAM: u32 = sys::VIR_DOMAIN_START_RESET_NVRAM;
/// By the power button (`VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN`).
pub const SHUTDOWN_ACPI: u32 = sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN;
/// By the guest agent (`VIR_DOMAIN_SHUTDOWN_GUEST_AGENT`).
pub const SHUTDOWN_AGENT: u32 = sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT;
/// By the power button (`VIR_DOMAIN_REBOOT_ACPI_POWER_BTN`).
pub const REBOOT_ACPI: u32 = sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN;
/// By the guest agent (`VIR_DOMAIN_REBOOT_GUEST_AGENT`).
pub const REBOOT_AGENT: u32 = sys::VIR_DOMAIN_REBOOT_GUEST_AGENT;
/// Never by SIGKILL (`VIR_DOMAIN_DESTROY_GRACEFUL`).
pub const DESTROY_GRACEFUL: u32 = sys::VIR_DOMAIN_DESTROY_GRACEFUL;
/// Without the page cache (`VIR_DOMAIN_SAVE_BYPASS_CACHE`).
pub const SAVE_BYPASS_CACHE: u32 = sys::VIR_DOMAIN_SAVE_BYPASS_CACHE;
/// Running after the restore, whatever it was before (`VIR_DOMAIN_SAVE_RUNNING`).
pub const SAVE_RUNNING: u32 = sys::VIR_DOMAIN_SAVE_RUNNING;
/// Paused after the restore, whatever it was before (`VIR_DOMAIN_SAVE_PAUSED`).
pub const SAVE_PAUSED: u32 = sys::VIR_DOMAIN_SAVE_PAUSED;
/// The saved XML with passwords (`VIR_DOMAIN_SAVE_IMAGE_XML_SECURE`).
pub const SAVE_IMAGE_XML_SECURE: u32 = sys::VIR_DOMAIN_SAVE_IMAGE_XML_SECURE;
/// The most CPUs that can be plugged (`VIR_DOMAIN_VCPU_MAXIMUM`).
pub const VCPU_MAXIMUM: u32 = sys::VIR_DOMAIN_VCPU_MAXIMUM;
/// By the guest agent (`VIR_DOMAIN_VCPU_GUEST`).
pub const VCPU_GUEST: u32 = sys::VIR_DOMAIN_VCPU_GUEST;
/// CPUs that can be unplugged (`VIR_DOMAIN_VCPU_HOTPLUGGABLE`).
pub const VCPU_HOTPLUGGABLE: u32 = sys::VIR_DOMAIN_VCPU_HOTPLUGGABLE;
/// The most memory (`VIR_DOMAIN_MEM_MAXIMUM`).
pub const MEM_MAXIMUM: u32 = sys::VIR_DOMAIN_MEM_MAXIMUM;
/// Even against the guest, for example a locked CD-ROM tray (`VIR_DOMAIN_DEVICE_MODIFY_FORCE`).
pub const DEVICE_FORCE: u32 = sys::VIR_DOMAIN_DEVICE_MODIFY_FORCE;
/// libvirt does not remember it (`VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA`).
pub const SNAPSHOT_NO_METADATA: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA;
/// Stop the domain after it (`VIR_DOMAIN_SNAPSHOT_CREATE_HALT`).
pub const SNAPSHOT_HALT: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_HALT;
/// Disks, no memory (`VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY`).
pub const SNAPSHOT_DISK_ONLY: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY;
/// Into files that exist; what is in them is not checked (`VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT`).
pub const SNAPSHOT_REUSE_EXT: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT;
/// With the guest's file systems frozen by its agent (`VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE`).
pub const SNAPSHOT_QUIESCE: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE;
/// All disks or none (`VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC`).
pub const SNAPSHOT_ATOMIC: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;
/// The guest runs on while memory is written (`VIR_DOMAIN_SNAPSHOT_CREATE_LIVE`).
pub const SNAPSHOT_LIVE: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_LIVE;
/// Check the XML against libvirt's schema (`VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE`).
pub const SNAPSHOT_VALIDATE: u32 = sys::VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE;
/// Base is the layer below top (`VIR_DOMAIN_BLOCK_COMMIT_SHALLOW`).
pub const BLOCK_COMMIT_SHALLOW: u32 = sys::VIR_DOMAIN_BLOCK_COMMIT_SHALLOW;
/// Delete the layers that were committed (`VIR_DOMAIN_BLOCK_COMMIT_DELETE`).
pub const BLOCK_COMMIT_DELETE: u32 = sys::VIR_DOMAIN_BLOCK_COMMIT_DELETE;
/// Top may be the layer in use: waits in ready for pivot or abort (`VIR_DOMAIN_BLOCK_COMMIT_ACTIVE`).
pub const BLOCK_COMMIT_ACTIVE: u32 = sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE;
/// Keep relative names of backing files (`VIR_DOMAIN_BLOCK_COMMIT_RELATIVE`).
pub const BLOCK_COMMIT_RELATIVE: u32 = sys::VIR_DOMAIN_BLOCK_COMMIT_RELATIVE;
/// The limit is in bytes per second (`VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES`).
pub const BLOCK_COMMIT_BANDWIDTH_BYTES: u32 = sys::VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES;
/// Don't wait for the end (`VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC`).
pub const BLOCK_JOB_ASYNC: u32 = sys::VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC;
/// Switch over to the job's result (`VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT`).
pub const BLOCK_JOB_PIVOT: u32 = sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT;
/// Cut whoever is connected (`VIR_DOMAIN_CONSOLE_FORCE`).
pub const CONSOLE_FORCE: u32 = sys::VIR_DOMAIN_CONSOLE_FORCE;
/// Only if exclusive use can be granted (`VIR_DOMAIN_CONSOLE_SAFE`).
pub const CONSOLE_SAFE: u32 = sys::VIR_DOMAIN_CONSOLE_SAFE;
/// Ask for no password (`VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH`).
pub const GRAPHICS_SKIPAUTH: u32 = sys::VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH;
/// It is a crypt(3) hash (`VIR_DOMAIN_PASSWORD_ENCRYPTED`).
pub const PASSWORD_ENCRYPTED: u32 = sys::VIR_DOMAIN_PASSWORD_ENCRYPTED;
/// Add to the keys that are there (`VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND`).
pub const SSH_KEYS_APPEND: u32 = sys::VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND;
/// Remove these keys (`VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_REMOVE`).
pub const SSH_KEYS_REMOVE: u32 = sys::VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_REMOVE;
/// Who is logged in (`VIR_DOMAIN_GUEST_INFO_USERS`).
pub const GUEST_INFO_USERS: u32 = sys::VIR_DOMAIN_GUEST_INFO_USERS;
/// The operating system (`VIR_DOMAIN_GUEST_INFO_OS`).
pub const GUEST_INFO_OS: u32 = sys::VIR_DOMAIN_GUEST_INFO_OS;
/// The time zone (`VIR_DOMAIN_GUEST_INFO_TIMEZONE`).
pub const GUEST_INFO_TIMEZONE: u32 = sys::VIR_DOMAIN_GUEST_INFO_TIMEZONE;
/// The host name (`VIR_DOMAIN_GUEST_INFO_HOSTNAME`).
pub const GUEST_INFO_HOSTNAME: u32 = sys::VIR_DOMAIN_GUEST_INFO_HOSTNAME;
/// Mounted file systems and their use (`VIR_DOMAIN_GUEST_INFO_FILESYSTEM`).
pub const GUEST_INFO_FILESYSTEM: u32 = sys::VIR_DOMAIN_GUEST_INFO_FILESYSTEM;
/// Disks and partitions (`VIR_DOMAIN_GUEST_INFO_DISKS`).
pub const GUEST_INFO_DISKS: u32 = sys::VIR_DOMAIN_GUEST_INFO_DISKS;
/// Network interfaces; libvirt 7.10 (`VIR_DOMAIN_GUEST_INFO_INTERFACES`).
pub const GUEST_INFO_INTERFACES: u32 = sys::VIR_DOMAIN_GUEST_INFO_INTERFACES;
/// Wait for ever for the agent (`VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK`).
pub const AGENT_BLOCK: i32 = sys::VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK;
/// Wait 5 seconds for the agent (`VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT`).
pub const AGENT_DEFAULT: i32 = sys::VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT;
/// Don't wait for the agent (`VIR_DOMAIN_QEMU_AGENT_COMMAND_NOWAIT`).
pub const AGENT_NOWAIT: i32 = sys::VIR_DOMAIN_QEMU_AGENT_COMMAND_NOWAIT;
/// Key codes of Linux (`KEY_*`) (`VIR_KEYCODE_SET_LINUX`).
pub const KEYCODE_LINUX: u32 = sys::VIR_KEYCODE_SET_LINUX;
/// Key codes of USB keyboards (`VIR_KEYCODE_SET_USB`).
pub const KEYCODE_USB: u32 = sys::VIR_KEYCODE_SET_USB;
/// Key codes of QEMU, as VNC's extended key events carry (`VIR_KEYCODE_SET_QNUM`).
pub const KEYCODE_QNUM: u32 = sys::VIR_KEYCODE_SET_QNUM;
