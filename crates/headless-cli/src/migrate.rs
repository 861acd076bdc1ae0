//! `headless migrate`: bring a store's schema up to date, or say what it lacks.

use std::io::{self, Write};

use anyhow::Result;
use headless::{
    Providers,
    postgres::{Migration, Postgres, PostgresConfig},
};
use serde::Serialize;

use crate::{cli::MigrateArgs, urls};

/// How far the schema of a store has come.
#[derive(Serialize)]
struct Schema {
    provider: &'static str,
    /// `None` where the provider keeps none.
    schema: Option<String>,
    /// What was there before.
    present: Vec<&'static str>,
    /// What was brought just now.
    applied: Vec<&'static str>,
    /// What is missing.
    pending: Vec<&'static str>,
}

/// Migrates, or only looks; says whether the schema is up to date then.
pub(crate) async fn run(args: &MigrateArgs) -> Result<bool> {
    let scheme = args.store.split(':').next().unwrap_or_default();
    let schema = if ["postgres", "postgresql"].contains(&&*scheme.to_ascii_lowercase()) {
        postgres(args).await.map_err(urls::wrong("--store"))?
    } else {
        let (store, _) = urls::connect(&Providers::builtin(), Some(&args.store), None).await?;
        Schema::none(store.map_or("none", |store| store.name()))
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&schema)?)?;
    } else {
        schema.write(&mut out)?;
    }
    Ok(schema.pending.is_empty())
}

async fn postgres(args: &MigrateArgs) -> headless::Result<Schema> {
    let config = PostgresConfig::new(&args.store)?;
    let before = Postgres::check(&config).await?;
    let (applied, pending) = if args.check {
        (Vec::new(), before.pending)
    } else {
        (Postgres::migrate(&config).await?, Vec::new())
    };
    Ok(Schema {
        provider: "postgres",
        schema: Some(config.schema.to_string()),
        present: names(&before.applied),
        applied: names(&applied),
        pending: names(&pending),
    })
}

fn names(migrations: &[Migration]) -> Vec<&'static str> {
    migrations.iter().map(|migration| migration.name).collect()
}

impl Schema {
    const fn none(provider: &'static str) -> Self {
        Self {
            provider,
            schema: None,
            present: Vec::new(),
            applied: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(schema) = &self.schema else {
            return writeln!(
                out,
                "{} keeps no schema: there is nothing to migrate",
                self.provider
            );
        };
        for (word, names) in [
            ("present", &self.present),
            ("applied", &self.applied),
            ("missing", &self.pending),
        ] {
            for name in names {
                writeln!(out, "{word}  {name}")?;
            }
        }
        match self.pending.len() {
            0 => writeln!(out, "schema {schema} is up to date"),
            missing => writeln!(
                out,
                "schema {schema} lacks {missing} migrations: run `headless migrate` without --check"
            ),
        }
    }
}
