//! Statements: text in files, the schema's name put in once.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

use crate::Schema;

/// Where the schema's name goes in a file of SQL.
const PLACEHOLDER: &str = "{schema}";

/// A statement of ours, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Sql(Arc<str>);

impl Sql {
    /// The statement of this file, in this schema.
    pub(crate) fn new(file: &'static str, schema: &Schema) -> Self {
        Self(in_schema(file, schema).into())
    }

    /// The statement with this number put in.
    pub(crate) fn with(&self, placeholder: &str, number: i32) -> Self {
        Self(self.0.replace(placeholder, &number.to_string()).into())
    }

    /// The statement, vouched for: its text is a file of this crate, and the schema's name is a valid identifier.
    pub(crate) fn get(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.0.clone())
    }
}

/// This text of SQL with the schema's name put in.
pub(crate) fn in_schema(file: &str, schema: &Schema) -> String {
    file.replace(PLACEHOLDER, schema.as_str())
}

/// Declares a set of statements, each field from `queries/<path>.sql`.
macro_rules! statements {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $path:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $(pub(crate) $field: $crate::sql::Sql,)*
        }

        impl $name {
            pub(crate) fn new(schema: &$crate::Schema) -> Self {
                Self {
                    $($field: $crate::sql::Sql::new(
                        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/queries/", $path, ".sql")),
                        schema,
                    ),)*
                }
            }
        }
    };
}
pub(crate) use statements;
