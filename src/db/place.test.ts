import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { makeCertificate } from "../registry/certificate.test-kit.ts";
import { Database } from "./database.ts";
import { databasePlace } from "./place.ts";
import { startTlsPostgres, type TlsPostgres } from "./tls-postgres.test-kit.ts";

describe("a database URL", () => {
  test.each([
    "postgres://u:p@db.example/n",
    "postgres://u:p@db.example/n?sslmode=disable",
    "postgres://u:p@db.example/n?sslmode=allow",
    "postgres://u:p@db.example/n?sslmode=prefer",
    "postgres://u:p@db.example/n?sslmode=Require",
    "postgres://u:p@10.0.0.7:5432/n",
    "postgres://u:p@[fd00::7]/n",
    "postgres://u:p@localhost.example/n",
    "postgres://u:p@127.0.0.1,db.example/n",
    "postgres://u:p@db.example/n?host=localhost",
  ])("%s is refused: it would go over the network in the clear", (url) => {
    expect(() => databasePlace(url)).toThrow("in the clear");
    expect(() => databasePlace(url)).not.toThrow("u:p");
  });

  test("stays in the clear on this machine, and by a Unix socket", () => {
    for (const host of ["localhost", "127.0.0.1:5433", "[::1]"])
      expect(databasePlace(`postgres://u@${host}/n`).tls).toBeUndefined();
    expect(databasePlace("postgres://u@localhost/n?host=%2Frun%2Fpg")).toEqual({
      url: "postgres://u@localhost/n",
      path: "/run/pg/.s.PGSQL.5432",
      tls: undefined,
    });
  });

  test("asks for TLS 1.2 or later by each mode that does not fall back", () => {
    for (const mode of ["require", "verify-ca", "verify-full"]) {
      const { url, tls } = databasePlace(`postgres://u:p@db.example/n?sslmode=${mode}&application_name=a`);
      expect(url).toBe("postgres://u:p@db.example/n?application_name=a");
      expect(tls).toMatchObject({ minVersion: "TLSv1.2", rejectUnauthorized: mode !== "require" });
    }
  });

  test("names a root certificate that can be read", () => {
    const url = "postgres://u:p@db.example/n?sslmode=verify-full&sslrootcert=";
    expect(() => databasePlace(`${url}/nowhere`)).toThrow("/nowhere cannot be read (ENOENT)");
    expect(() => databasePlace(`${url}/etc/hostname`)).toThrow("no certificate in /etc/hostname");
  });
});

describe("a server with TLS", () => {
  let dir: string;
  let server: TlsPostgres;
  let ca: string;
  let otherCa: string;

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "oci-node-place-"));
    const [own, other] = [await makeCertificate("localhost"), await makeCertificate("localhost")];
    [ca, otherCa] = [join(dir, "ca.pem"), join(dir, "other.pem")];
    writeFileSync(ca, own.certificate);
    writeFileSync(otherCa, other.certificate);
    server = await startTlsPostgres(own);
  }, 60_000);
  afterAll(async () => {
    await server.end();
    rmSync(dir, { recursive: true });
  }, 60_000);

  /** The version of TLS that a connection has, as the server sees it; or why there is none. */
  async function versionOf(host: string, query: string): Promise<string> {
    const url = `postgres://oci_node:${server.password}@${host}:${server.port}/postgres${query}`;
    try {
      const database = await Database.connect(url, { maxConnections: 1 });
      try {
        const asked = sql`select version from pg_stat_ssl where pid = pg_backend_pid()`;
        const [row] = await database.query((db) => db.execute(asked));
        return String((row as { version: unknown } | undefined)?.version ?? "in the clear");
      } finally {
        await database.close();
      }
    } catch (error) {
      expect(String(error)).not.toContain(server.password);
      return String((error as { message: unknown }).message);
    }
  }

  test("is spoken to over it, and is who it has to be", async () => {
    expect(await versionOf("127.0.0.1", "?sslmode=require")).toBe("TLSv1.3");
    expect(await versionOf("localhost", `?sslmode=verify-full&sslrootcert=${ca}`)).toBe("TLSv1.3");
    expect(await versionOf("127.0.0.1", `?sslmode=verify-ca&sslrootcert=${ca}`)).toBe("TLSv1.3");
  });

  test("is refused when its name, or its authority, is another, or when nobody vouches for it", async () => {
    for (const [host, query] of [
      ["127.0.0.1", `?sslmode=verify-full&sslrootcert=${ca}`],
      ["localhost", `?sslmode=verify-full&sslrootcert=${otherCa}`],
      ["localhost", `?sslmode=verify-ca&sslrootcert=${otherCa}`],
      ["localhost", `?sslmode=require&sslrootcert=${otherCa}`],
      ["localhost", "?sslmode=verify-full"],
    ] as const)
      expect([query, await versionOf(host, query)]).toEqual([
        query,
        expect.stringContaining("the database's TLS is not taken ("),
      ]);
  });

  test("migrates and answers many over it", async () => {
    const url = `postgres://oci_node:${server.password}@localhost:${server.port}/postgres?sslmode=verify-full&sslrootcert=${ca}`;
    const database = await Database.connect(url);
    await database.migrate();
    const counts = await Promise.all(
      Array.from({ length: 30 }, () =>
        database.query((db) => db.execute(sql`select count(*) from workspaces`)),
      ),
    );
    expect(counts).toHaveLength(30);
    await database.close();
  }, 30_000);
});

test("a server without TLS, or with an older one, is not told a password", async () => {
  const certificate = await makeCertificate("localhost");
  for (const settings of [
    ["ssl=off"],
    ["ssl_min_protocol_version=TLSv1", "ssl_max_protocol_version=TLSv1.1"],
  ]) {
    const server = await startTlsPostgres(certificate, settings);
    try {
      const url = `postgres://oci_node:${server.password}@127.0.0.1:${server.port}/postgres?sslmode=require`;
      const failure = await Database.connect(url, { maxConnections: 1 }).then(
        () => "connected",
        (error: unknown) => (error as { code: unknown }).code,
      );
      expect([settings, failure]).toEqual([settings, "unavailable"]);
    } finally {
      await server.end();
    }
  }
}, 60_000);
