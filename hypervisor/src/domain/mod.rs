//! Domains: what we define ([`spec`]), what we read ([`view`]), what we keep in their metadata ([`metadata`]), and the
//! calls ([`ops`]).

mod metadata;
mod ops;
mod spec;
mod view;

pub use metadata::{Metadata, TemplateRef};
pub use ops::{Address, AddressSource, DomainStatus, Power, Sample};
pub use spec::{DomainSpec, NicSpec, SystemDisk};
pub use view::{DiskView, DomainView, NicView};
