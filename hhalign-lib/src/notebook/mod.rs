//! Everything that only a notebook needs.
//!
//! [`options`] are the settings of a run, [`lab`] has the interactive outputs, [`lesson`] checks
//! the exercises, and [`display`] shows our types, and those of the other three, in a cell. Read
//! them in this order.

pub mod display;
pub mod lab;
pub mod lesson;
pub mod options;
