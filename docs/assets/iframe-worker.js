// Browsers start no worker in a page that is opened as a file. There the search runs in a hidden frame instead, which
// has what its script uses: importScripts, postMessage, message events.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      const load = source => new Promise(done => {
        const script = inside.document.createElement("script")
        script.src = source
        script.onload = done
        inside.document.body.append(script)
      })
      inside.importScripts = (...sources) => sources.reduce((before, one) => before.then(() => load(one)), Promise.resolve())
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.ready = load(url)
      this.postMessage = data => this.ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })))
      this.terminate = () => frame.remove()
    }
  }
}
