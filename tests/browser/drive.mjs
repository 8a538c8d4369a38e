// Opens the page in a browser, lets it ask, and prints what it found as JSON:
// drive.mjs BROWSER '{"websocket": …, "machine": …, "viewers": […]}'
import { chromium } from "playwright-core";
import { preview } from "vite";

const [executablePath, asked] = process.argv.slice(2);

// A page that hangs ends nothing by itself.
const DEADLINE_MS = 180_000;
const giveUp = () => {
  console.error("not in time");
  process.exit(1);
};
setTimeout(giveUp, DEADLINE_MS).unref();

const server = await preview({ logLevel: "silent", preview: { host: "127.0.0.1", port: 0 } });
// A sandbox of its own is nothing that root or a container can have.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(error));
  await page.goto(`http://127.0.0.1:${server.httpServer.address().port}/`);
  await page.waitForFunction(() => window.run);
  console.log(JSON.stringify(await page.evaluate((asked) => window.run(asked), JSON.parse(asked))));
} finally {
  await browser.close();
  await server.close();
}
