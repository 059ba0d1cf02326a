import { sql } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { containers, endedContainerStates } from "../db/schema.ts";
import { deployments } from "../db/schema-endpoint.ts";

/** A deployment that has more ended containers than are kept of it. */
export interface Overgrown {
  readonly deploymentId: string;
  readonly keep: number;
}

/** What endpoints leave behind: it comes with every request from zero, without end. */
export class RetentionStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Forgets deployments that are over, but for the latest of each endpoint, once none of their containers lives. */
  async forgetDeployments(keep: number): Promise<void> {
    await this.#database.query((db) =>
      db.execute(sql`
        delete from ${deployments} where id in (
          select id from (
            select id, row_number() over (partition by endpoint_id order by version desc) as place
            from ${deployments} where state in ('retired', 'failed')
          ) as over_now where place > ${keep})
        and not exists (
          select 1 from ${containers}
          where deployment_id = ${deployments.id} and state not in ${endedContainerStates})`),
    );
  }

  /** Deployments with more ended containers than `keep`; of those that are gone, with any. */
  async overgrown(keep: number): Promise<Overgrown[]> {
    const rows = await this.#database.query((db) =>
      db.execute(sql`
        select c.deployment_id as id, d.id is null as gone
        from ${containers} c left join ${deployments} d on d.id = c.deployment_id
        where c.deployment_id is not null and c.state in ${endedContainerStates}
        group by c.deployment_id, d.id
        having d.id is null or count(*) > ${keep}`),
    );
    return [...rows].map(({ id, gone }) => ({ deploymentId: String(id), keep: gone === true ? 0 : keep }));
  }
}
