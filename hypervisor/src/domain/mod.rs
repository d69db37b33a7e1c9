//! Domains: what we define ([`spec`]), what we read ([`view`]), what we keep in their metadata ([`metadata`]), and the
//! calls ([`ops`], [`disks`], [`layers`], [`commit`], with [`left_images`] and [`qemu`] for what a libvirtd that was killed has left; [`modify`] has those that change size and labels, [`resize`] edits the
//! XML for them; [`display`] and [`serial`] are the consoles).

mod agent;
mod boot;
mod cdrom;
mod commit;
mod disks;
mod display;
mod edits;
mod guest;
mod guest_files;
mod helper;
mod layers;
mod left_images;
mod limits;
mod metadata;
mod modify;
mod nics;
mod ops;
mod qemu;
mod resize;
mod sample;
mod serial;
mod spec;
mod view;
mod why;

pub use agent::is_no_user;
pub use boot::{BootDevice, BootPlaces};
pub use cdrom::Drive;
pub use commit::Merge;
pub use disks::{DataDisk, DomainDisks};
pub use display::{Display, Duplex, Picture};
pub use guest::{Ended, FileSystem, GuestInfo};
pub(crate) use helper::{Helpers, is_helper};
pub use layers::{Freeze, Kept, Switch};
pub use limits::DiskLimits;
pub use metadata::{Metadata, TemplateRef};
pub use modify::{Before, Labels, Plugged, preview};
pub use nics::{DomainNics, NicChange};
pub use ops::{Address, AddressSource, DomainStatus, DomainText, Power};
pub use resize::{Headroom, Sizes};
pub use sample::{ALL_CPUS, DeviceCounters, MemoryCounters, Sample};
pub use serial::{SerialInput, SerialLine};
pub use spec::{DomainSpec, NicSpec, SystemDisk};
pub use view::{AtNextStart, DiskView, DomainView, NicView};
pub use why::Why;
