//! Tables, plots and pages from plain numbers and text. Nothing here knows a model or a metric.
//!
//! Read [`table`] and [`plot`] first: they are what most cells show. [`view`] is HTML with its
//! plain text, [`pages`] makes pages with scripts, and [`server`] serves pages from this process.

pub mod pages;
pub mod plot;
pub mod server;
pub mod table;
pub mod view;
