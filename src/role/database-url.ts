import { ConfigError } from "../config.ts";
import { DbError } from "../db/error.ts";
import { databasePlace } from "../db/place.ts";

/** Before anything is asked of it: a mistake in the URL is one of the configuration's. @throws ConfigError */
export function assertSafeDatabase(url: string): void {
  try {
    databasePlace(url);
  } catch (error) {
    if (!(error instanceof DbError)) throw error;
    throw new ConfigError("invalid", `database.url: ${error.message}`, { next: error.next });
  }
}
