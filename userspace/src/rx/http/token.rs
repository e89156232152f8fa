//! A signed impression as text: what stands in links and in JSON.
