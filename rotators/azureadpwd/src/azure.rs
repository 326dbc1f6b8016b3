//! What the application may do to resources in Azure.
