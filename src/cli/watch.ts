/** `raphson watch`: a live page of the runs below a folder. What is shown, `report/page.ts` says. */
import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { parseArgs } from "node:util";
import { page } from "../report/page";
import { RunReader } from "../report/runs";

/** Answers with the page and, again and again, the runs. */
function serverOf(folder: string): Server {
  const reader = new RunReader(folder);
  const html = page(`runs in ${folder}`);
  return createServer(async (request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const answer = (status: number, type: string, text: string) => {
      response.writeHead(status, { "content-type": `${type}; charset=utf-8`, "cache-control": "no-store" }).end(text);
    };
    if (path === "/") return answer(200, "text/html", html);
    if (path !== "/runs.json") return answer(404, "text/plain", "there are / and /runs.json");
    try {
      answer(200, "application/json", JSON.stringify(await reader.read()));
    } catch (error) {
      answer(
        500,
        "application/json",
        JSON.stringify({ error: error instanceof Error ? error.message : String(error) }),
      );
    }
  });
}

/** Runs the command until it is interrupted; gives the exit code where it cannot begin. */
export async function watch(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { port: { type: "string", default: "6007" }, host: { type: "string", default: "127.0.0.1" } },
  });
  const [folder = "runs", ...more] = positionals;
  const port = Number(values.port);
  if (more.length > 0 || !Number.isInteger(port) || port < 0 || port > 65535) {
    console.error("watch takes one folder and a port between 0 (any that is free) and 65535");
    return 2;
  }
  if (!existsSync(folder)) {
    console.error(`there is no folder ${folder}; train({ log: "runs/name" }) makes one`);
    return 1;
  }
  const server = serverOf(folder);
  return new Promise((resolve) => {
    server.on("error", (error) => {
      console.error(`cannot serve on ${values.host}:${port}: ${error.message}; choose another with --port`);
      resolve(1);
    });
    server.listen(port, values.host, () => {
      const address = server.address();
      const at = typeof address === "object" && address !== null ? address.port : port;
      console.log(
        `${folder} at http://${values.host.includes(":") ? `[${values.host}]` : values.host}:${at}/ (Ctrl-C ends it)`,
      );
    });
    process.once("SIGINT", () => {
      server.closeAllConnections();
      server.close(() => resolve(0));
    });
  });
}
