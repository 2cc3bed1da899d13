// Opens the side panel when the icon is clicked. Not with setPanelBehavior({ openPanelOnActionClick: true }): then the
// click would not come here, and a click that does come here also lets the extension read this one tab (activeTab).
chrome.action.onClicked.addListener((tab) => {
  chrome.sidePanel.open({ windowId: tab.windowId });
  // A panel that is open already reads the page anew; where none is open there is nobody to hear it.
  chrome.runtime.sendMessage("clicked").catch(() => {});
});
